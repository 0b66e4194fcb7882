// A target under libFuzzer: three of four mutations are the target's own, the others libFuzzer's.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tests/fuzz/target.h"

// NOLINTBEGIN(readability-identifier-naming): the names are libFuzzer's
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  qwen::fuzz::run({reinterpret_cast<const std::byte*>(data), size});
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned int seed) {
  using namespace qwen::fuzz;
  Random random(seed);
  if (random.below(4) == 0) return LLVMFuzzerMutate(data, size, max_size);
  const Bytes input(reinterpret_cast<std::byte*>(data), reinterpret_cast<std::byte*>(data) + size);
  const Bytes out = mutate(input, max_size, random);
  if (!out.empty()) std::memcpy(data, out.data(), out.size());
  return out.size();
}
// NOLINTEND(readability-identifier-naming)
