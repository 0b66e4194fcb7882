#include "core/int8.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace qwen {
namespace {

constexpr float kTooSmall = 0x1p-100f;
constexpr float kTooLarge = 0x1p110f;  // the product of a step, a scale and an integer is a number

// Infinite or not-a-number if a value is: their bits are larger than those of all numbers.
float largest_magnitude(const float* values) {
  std::uint32_t largest = 0;
  for (std::int64_t i = 0; i < kInt8Block; ++i) {
    largest = std::max(largest, std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffu);
  }
  return std::bit_cast<float>(largest);
}

}  // namespace

float int8_step(float largest) {
  if (!(largest < kTooLarge)) return std::numeric_limits<float>::quiet_NaN();
  if (largest < kTooSmall) return 0;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(largest / 127);
  return std::bit_cast<float>((bits + 0x7fffu) & ~0x7fffu);
}

bool int8_is_fine(float largest, double sum, std::int64_t n_blocks, double fine_from) {
  return largest * static_cast<double>(n_blocks) > fine_from * sum;
}

std::vector<Int8Rounding> int8_roundings(const float* row, std::int64_t n, double fine_from) {
  const std::int64_t n_blocks = n / kInt8Block;
  std::vector<float> largest(n_blocks);
  double sum = 0;
  for (std::int64_t b = 0; b < n_blocks; ++b) {
    largest[b] = largest_magnitude(row + b * kInt8Block);
    sum += largest[b];
  }
  std::vector<Int8Rounding> roundings(n_blocks);
  for (std::int64_t b = 0; b < n_blocks; ++b) {
    roundings[b] = {.step = int8_step(largest[b]),
                    .fine = int8_is_fine(largest[b], sum, n_blocks, fine_from)};
  }
  return roundings;
}

void round_to_int8(float* row, std::int64_t n, double fine_from) {
  const std::vector<Int8Rounding> roundings = int8_roundings(row, n, fine_from);
  for (std::int64_t b = 0; b < n / kInt8Block; ++b) {
    const float unit = roundings[b].unit();
    const float per_value = unit == 0 ? 0 : 1 / unit;
    for (std::int64_t i = b * kInt8Block; i < (b + 1) * kInt8Block; ++i) {
      row[i] = std::isnan(unit) ? unit : std::nearbyint(row[i] * per_value) * unit;
    }
  }
}

}  // namespace qwen
