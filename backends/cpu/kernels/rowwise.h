// Loops over one row: norm, activation, rotation, softmax.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cpu/kernels/kernels.h"
#include "backends/cpu/kernels/simd.h"

namespace qwen::cpu {

template <class Arch>
void rms_norm(const float* x, const float* weight, float eps, std::int64_t n, float* out) {
  using V = typename Simd<Arch>::V;
  constexpr std::int64_t kLanes = Simd<Arch>::kLanes;
  const std::int64_t whole = n / kLanes * kLanes;
  V squares(0.0f);
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    const V v = V::load_unaligned(x + i);
    squares = Simd<Arch>::fma(v, v, squares);
  }
  float sum = xsimd::hadd(squares);
  for (std::int64_t i = whole; i < n; ++i) sum += x[i] * x[i];
  const float scale = 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    (V::load_unaligned(x + i) * V(scale) * V::load_unaligned(weight + i)).store_unaligned(out + i);
  }
  for (std::int64_t i = whole; i < n; ++i) out[i] = x[i] * scale * weight[i];
}

template <class Arch>
void silu_mul(const float* gate, const float* up, std::int64_t n, float* out) {
  using V = typename Simd<Arch>::V;
  constexpr std::int64_t kLanes = Simd<Arch>::kLanes;
  const std::int64_t whole = n / kLanes * kLanes;
  const auto apply = [](V g, V u) { return g / (V(1.0f) + xsimd::exp(-g)) * u; };
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    apply(V::load_unaligned(gate + i), V::load_unaligned(up + i)).store_unaligned(out + i);
  }
  for (std::int64_t i = whole; i < n; ++i) {
    out[i] = apply(V(gate[i]), V(up[i])).get(0);  // the same bits wherever an element stands
  }
}

template <class Arch>
void add(float* x, const float* y, std::int64_t n) {
  using V = typename Simd<Arch>::V;
  constexpr std::int64_t kLanes = Simd<Arch>::kLanes;
  const std::int64_t whole = n / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    (V::load_unaligned(x + i) + V::load_unaligned(y + i)).store_unaligned(x + i);
  }
  for (std::int64_t i = whole; i < n; ++i) x[i] += y[i];
}

template <class Arch>
std::int64_t first_largest(const float* x, std::int64_t n) {
  using V = typename Simd<Arch>::V;
  constexpr std::int64_t kLanes = Simd<Arch>::kLanes;
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  const std::int64_t whole = n / kLanes * kLanes;
  V best(kLowest);
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    const V v = V::load_unaligned(x + i);
    best = xsimd::select(v > best, v, best);  // false for not-a-number
  }
  float largest = kLowest;
  for (std::int64_t lane = 0; lane < kLanes; ++lane) largest = std::max(largest, best.get(lane));
  for (std::int64_t i = whole; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  if (largest == kLowest) return 0;
  std::int64_t i = 0;
  while (i < whole && !xsimd::any(V::load_unaligned(x + i) == V(largest))) i += kLanes;
  while (x[i] != largest) ++i;
  return i;
}

template <class Arch>
void rope(float* x, const float* cosine, const float* sine, std::int64_t half) {
  using V = typename Simd<Arch>::V;
  constexpr std::int64_t kLanes = Simd<Arch>::kLanes;
  const std::int64_t whole = half / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    const V a = V::load_unaligned(x + i);
    const V b = V::load_unaligned(x + half + i);
    const V c = V::load_unaligned(cosine + i);
    const V s = V::load_unaligned(sine + i);
    (a * c - b * s).store_unaligned(x + i);
    (b * c + a * s).store_unaligned(x + half + i);
  }
  for (std::int64_t i = whole; i < half; ++i) {
    const float a = x[i];
    const float b = x[half + i];
    x[i] = a * cosine[i] - b * sine[i];
    x[half + i] = b * cosine[i] + a * sine[i];
  }
}

template <class Arch>
void softmax(const SoftmaxRow& row) {
  using V = typename Simd<Arch>::V;
  constexpr std::int64_t kLanes = Simd<Arch>::kLanes;
  constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
  // The scores that may not be seen are taken out before anything looks at them: slots beyond the
  // sequence hold whatever was there, not-a-number included.
  const std::int64_t valid = row.n_valid < 0 ? 0 : row.n_valid;
  for (std::int64_t j = valid; j < row.n_keys; ++j) row.scores[j] = kMinusInfinity;
  V largest(kMinusInfinity);
  for (std::int64_t j = 0; j < row.n_keys; j += kLanes) {
    const V s = V::load_unaligned(row.scores + j) * V(row.scale);
    s.store_unaligned(row.scores + j);
    largest = xsimd::max(largest, s);
  }
  alignas(64) float lanes[kLanes];
  largest.store_aligned(lanes);
  float max = *row.max;
  for (const float v : lanes) max = v > max ? v : max;

  V sums(0.0f);
  for (std::int64_t j = 0; j < row.n_keys; j += kLanes) {
    const V weight = xsimd::exp(V::load_unaligned(row.scores + j) - V(max));
    weight.store_unaligned(row.scores + j);
    sums = sums + weight;
  }
  const float sum = xsimd::hadd(sums);
  if (max == *row.max) {
    *row.sum += sum;
    return;
  }
  const float shrink = std::exp(*row.max - max);  // 0 before the first tile
  *row.max = max;
  *row.sum = *row.sum * shrink + sum;
  for (std::int64_t d = 0; d < row.n_out; d += kLanes) {
    (V::load_unaligned(row.out + d) * V(shrink)).store_unaligned(row.out + d);
  }
}

template <class Arch>
void f32_to_f16(const float* src, std::int64_t n, std::uint16_t* dst) {
  using V = typename Simd<Arch>::V;
  constexpr std::int64_t kLanes = Simd<Arch>::kLanes;
  const std::int64_t whole = n / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes)
    Simd<Arch>::store_f16(V::load_unaligned(src + i), dst + i);
  for (std::int64_t i = whole; i < n; ++i) dst[i] = Simd<Arch>::to_f16(src[i]);
}

}  // namespace qwen::cpu
