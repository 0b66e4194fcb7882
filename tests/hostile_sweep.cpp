// Every truncation and every single-bit flip of a valid file of 64 KiB, each loaded and, where it
// is accepted, run for a step:
//   hostile_sweep [STEP]
// takes every STEP-th of both, 1 if none is given. What must not happen ends the process.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <map>
#include <string>

#include "core/error.h"
#include "tests/error_of.h"
#include "tests/fixtures/tiny_model.h"
#include "tests/hostile_load.h"

namespace qwen::testing {
namespace {

using fixtures::Bytes;

constexpr std::size_t kFileBytes = 64 << 10;

Bytes file_of_64_kib() {
  fixtures::GgufWriter w = fixtures::tiny_model({.dtype = DType::kQ8_0,
                                                 .n_layers = 2,
                                                 .n_heads = 2,
                                                 .n_kv_heads = 1,
                                                 .head_dim = 16,
                                                 .ffn_dim = 64,
                                                 .outliers = false});
  w.set("general.description", std::string());
  // A multiple of the alignment more in the text is as many bytes more in the file.
  w.set("general.description", std::string(kFileBytes - w.bytes().size(), 'x'));
  return w.bytes();
}

struct Counts {
  std::uint64_t accepted = 0;
  std::map<std::string, std::uint64_t> refused;  // by code

  void add(const ErrorInfo& e) {
    if (e.code.empty()) {
      ++accepted;
      return;
    }
    ++refused[e.code];
    if ((e.offset || !e.key.empty() || !e.tensor.empty()) && e.file == "sweep.gguf") return;
    std::fprintf(stderr, "a refusal without a place: %s\n", e.message.c_str());
    std::abort();
  }

  void print(const char* what) const {
    std::uint64_t n = 0;
    for (const auto& [code, times] : refused) n += times;
    std::printf("%s: %llu accepted, %llu refused\n", what,
                static_cast<unsigned long long>(accepted), static_cast<unsigned long long>(n));
    for (const auto& [code, times] : refused) {
      std::printf("  %8llu %s\n", static_cast<unsigned long long>(times), code.c_str());
    }
  }
};

ErrorInfo load(std::span<const std::byte> bytes) {
  return error_of([&] { load_and_step(from_memory(bytes, "sweep.gguf")); });
}

Counts truncations(const Bytes& file, std::size_t step) {
  Counts counts;
  for (std::size_t size = 0; size < file.size(); size += step) {
    // Of exactly that size, so that AddressSanitizer sees a step beyond it.
    const Bytes cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size));
    counts.add(load(cut));
  }
  return counts;
}

Counts bit_flips(Bytes file, std::size_t step) {
  Counts counts;
  for (std::size_t bit = 0; bit < file.size() * 8; bit += step) {
    const auto mask = static_cast<std::byte>(1u << (bit % 8));
    file[bit / 8] ^= mask;
    counts.add(load(file));
    file[bit / 8] ^= mask;
  }
  return counts;
}

}  // namespace
}  // namespace qwen::testing

int main(int argc, char** argv) {
  using namespace qwen::testing;
  const std::size_t step = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 1;
  const Bytes file = file_of_64_kib();
  if (step == 0 || file.size() != kFileBytes) {
    std::fprintf(stderr, "usage: hostile_sweep [STEP]; the file has %zu bytes\n", file.size());
    return 2;
  }
  const Counts cut = truncations(file, step), flipped = bit_flips(file, step);
  cut.print("truncations");
  flipped.print("bit flips");
  // No truncation is valid; a flip in the weights is.
  return cut.accepted == 0 && flipped.accepted > 0 && !flipped.refused.empty() ? 0 : 1;
}
