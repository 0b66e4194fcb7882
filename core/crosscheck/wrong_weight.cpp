#include "core/crosscheck/wrong_weight.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace qwen::crosscheck {
namespace {

// Beyond it a misread offset is looked for no further: the largest alignment in use.
constexpr std::size_t kFurthest = 4096;

bool is_shifted(std::span<const std::byte> got, std::span<const std::byte> right,
                std::size_t shift) {
  return got.size() > shift &&
         std::equal(right.begin() + static_cast<std::ptrdiff_t>(shift), right.end(), got.begin());
}

// The same blocks in whatever order.
bool same_blocks(std::span<const std::byte> a, std::span<const std::byte> b, std::size_t size) {
  const auto sorted = [&](std::span<const std::byte> bytes) {
    std::vector<const std::byte*> blocks;
    for (std::size_t at = 0; at + size <= bytes.size(); at += size) {
      blocks.push_back(bytes.data() + at);
    }
    std::sort(blocks.begin(), blocks.end(),
              [&](const std::byte* x, const std::byte* y) { return std::memcmp(x, y, size) < 0; });
    return blocks;
  };
  const auto x = sorted(a);
  const auto y = sorted(b);
  return std::equal(
      x.begin(), x.end(), y.begin(), y.end(),
      [&](const std::byte* p, const std::byte* q) { return std::memcmp(p, q, size) == 0; });
}

}  // namespace

std::string cause_of(const Tensor& right, std::span<const std::byte> got,
                     const std::vector<NamedWeight>& others) {
  const std::span<const std::byte> own(right.data, right.bytes());
  if (std::all_of(got.begin(), got.end(), [](std::byte b) { return b == std::byte{0}; })) {
    return "all zero";
  }
  for (std::size_t shift = 4; shift <= kFurthest; shift += 4) {
    if (is_shifted(got, own, shift)) return "read " + std::to_string(shift) + " bytes too far on";
    if (is_shifted(own, got, shift)) return "read " + std::to_string(shift) + " bytes too early";
  }
  for (const NamedWeight& other : others) {
    if (other.tensor.bytes() == got.size() &&
        std::memcmp(other.tensor.data, got.data(), got.size()) == 0) {
      return "holds " + other.name;
    }
  }
  if (same_blocks(own, got, static_cast<std::size_t>(info(right.dtype).block_bytes))) {
    return "the right blocks in another order";
  }
  return "unknown";
}

}  // namespace qwen::crosscheck
