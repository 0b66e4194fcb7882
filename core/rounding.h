// What the bounds of contract.h are computed with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace qwen {

inline constexpr double kUnit = 0x1p-24;  // unit roundoff of FP32

// g(h) of contract.h.
inline double growth(std::int64_t depth, bool truncates) {
  if (depth == 0) return 0;
  const double h = static_cast<double>(depth);
  const double linear = h * kUnit / (1 - h * kUnit);
  return truncates ? linear : std::min(linear, 8.8 * std::sqrt(h) * kUnit);
}

// Sums without an order, so that the compiler can use vectors.
struct Lanes {
  static constexpr std::int64_t kCount = 8;
  double v[kCount] = {};
  double sum() const { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }
};

// Calls f(i, lane) for i in [0, n), a whole set of lanes in an inner loop, which becomes vectors.
template <class F>
void in_lanes(std::int64_t n, F f) {
  std::int64_t i = 0;
  for (; i + Lanes::kCount <= n; i += Lanes::kCount) {
    for (std::int64_t lane = 0; lane < Lanes::kCount; ++lane) f(i + lane, lane);
  }
  for (; i < n; ++i) f(i, i % Lanes::kCount);
}

inline double sum_of_squares(const float* values, std::int64_t n) {
  Lanes squares;
  in_lanes(n, [&](std::int64_t i, std::int64_t lane) {
    squares.v[lane] += double{values[i]} * values[i];
  });
  return squares.sum();
}

}  // namespace qwen
