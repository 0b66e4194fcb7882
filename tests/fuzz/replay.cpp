// A target as a plain program, for any compiler:
//   fuzz_NAME [--seeds FOLDER] [--mutations N] [FILE|FOLDER]...
// runs the seeds, N mutations of them (one after the other, so that changes add up; always the same
// ones) and the given files. --seeds writes the seeds to a folder, where libFuzzer finds them.
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "tests/fuzz/target.h"

namespace qwen::fuzz {
namespace {

constexpr std::size_t kMaxBytes = 64 << 10;
constexpr int kGenerations = 16;  // changes on top of one seed

std::uint64_t run_path(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) {
    std::uint64_t n = 0;
    for (const auto& entry : std::filesystem::directory_iterator(path)) n += run_path(entry.path());
    return n;
  }
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (!in) throw std::runtime_error(path.string() + ": cannot be read");
  run(to_bytes(text));
  return 1;
}

std::uint64_t number(const std::string& text) {
  std::uint64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw std::runtime_error("--mutations " + text + ": expected a number");
  }
  return n;
}

void run_mutations(const std::vector<Bytes>& from, std::uint64_t n) {
  Random random(1);
  Bytes input;
  for (std::uint64_t i = 0; i < n; ++i) {
    if (i % kGenerations == 0) input = from[random.below(from.size())];
    input = mutate(input, kMaxBytes, random);
    run(input);
  }
}

void write_seeds(const std::vector<Bytes>& all, const std::string& folder) {
  std::filesystem::create_directories(folder);
  for (std::size_t i = 0; i < all.size(); ++i) {
    fixtures::write_file(folder + "/seed_" + std::to_string(i), all[i]);
  }
}

void main(const std::vector<std::string>& arguments) {
  std::uint64_t n_mutations = 0, n_files = 0;
  const std::vector<Bytes> all = seeds();
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const bool has_value = i + 1 < arguments.size();
    if (arguments[i] == "--seeds" && has_value) {
      write_seeds(all, arguments[++i]);
    } else if (arguments[i] == "--mutations" && has_value) {
      n_mutations = number(arguments[++i]);
    } else if (arguments[i].starts_with("-")) {
      throw std::runtime_error(arguments[i] + ": expected --seeds FOLDER, --mutations N, or files");
    } else {
      n_files += run_path(arguments[i]);
    }
  }
  const auto start = std::chrono::steady_clock::now();
  for (const Bytes& seed : all) run(seed);
  run_mutations(all, n_mutations);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  std::printf("%llu files, %zu seeds, %llu mutations, %.1f s\n",
              static_cast<unsigned long long>(n_files), all.size(),
              static_cast<unsigned long long>(n_mutations), spent.count());
}

}  // namespace
}  // namespace qwen::fuzz

int main(int argc, char** argv) {
  try {
    qwen::fuzz::main({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
