// Pieces of attention in FP32 for one token and up to eight query heads that share a key/value
// head. The head_dim elements of a key or value lie in a group of kLanes lanes, eight to a lane, so
// that a warp holds 32 / kLanes keys at a time. Weights are taken to the base 2: scores are q.k *
// scale * log2(e).
#pragma once

#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>

#include "backends/cuda/tile/reduce.cuh"

namespace qwen::cuda::tile {

inline constexpr int kRowHeads = 8;  // query heads that share each loaded key

// 2^x, good to 2 units in the last place; 2^-inf = 0. Results below 2^-126 are 0.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Eight consecutive elements of a row of the cache as they are stored. T is __half or float.
template <class T>
struct CacheVector {
  static constexpr int kWords = 8 * sizeof(T) / 4;
  std::uint32_t word[kWords];
};

// Loads the first n elements at `from` and makes the rest 0; with n = 0 `from` is not touched.
// kWhole: n is 0 or 8 and `from` is aligned to 16 bytes; else n is even and `from` aligned to 4.
// Past L1, since nothing is read twice.
template <bool kWhole, class T>
__device__ inline void load_vector(CacheVector<T>& to, const T* from, int n) {
  constexpr int kWords = CacheVector<T>::kWords;
  if constexpr (kWhole) {
#pragma unroll
    for (int w = 0; w < kWords; w += 4) {
      uint4 x = make_uint4(0, 0, 0, 0);
      if (n > 0) x = __ldcg(reinterpret_cast<const uint4*>(from) + w / 4);
      to.word[w] = x.x;
      to.word[w + 1] = x.y;
      to.word[w + 2] = x.z;
      to.word[w + 3] = x.w;
    }
  } else {
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      to.word[w] = 0;
      if (w * 8 / kWords < n) to.word[w] = __ldcg(reinterpret_cast<const unsigned*>(from) + w);
    }
  }
}

__device__ inline void to_float(const CacheVector<__half>& v, float (&x)[8]) {
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const float2 pair = __half22float2(reinterpret_cast<const __half2&>(v.word[w]));
    x[2 * w] = pair.x;
    x[2 * w + 1] = pair.y;
  }
}

__device__ inline void to_float(const CacheVector<float>& v, float (&x)[8]) {
#pragma unroll
  for (int e = 0; e < 8; ++e) x[e] = __uint_as_float(v.word[e]);
}

// q.k over the eight dimensions that this lane holds: dot[h] = sum_e q[h][e] * k[e].
__device__ inline void partial_dots(float (&dot)[kRowHeads], const float (&q)[kRowHeads][8],
                                    const float (&k)[8]) {
#pragma unroll
  for (int h = 0; h < kRowHeads; ++h) {
    dot[h] = q[h][0] * k[0];
#pragma unroll
    for (int e = 1; e < 8; ++e) dot[h] = fmaf(q[h][e], k[e], dot[h]);
  }
}

// Sums x[h] over the kLanes lanes of each group for all eight h at once. Lane l gets h = l % 8.
// Each of the first three steps sends half of what is left and keeps the other half. Clobbers x.
template <int kLanes>
__device__ inline float scatter_sum(float (&x)[kRowHeads], int lane) {
  static_assert(kLanes >= kRowHeads);
#pragma unroll
  for (int half = kRowHeads / 2; half > 0; half /= 2) {
    const bool upper = (lane & half) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float sent = upper ? x[i] : x[i + half];
      const float kept = upper ? x[i + half] : x[i];
      x[i] = kept + __shfl_xor_sync(kAllLanes, sent, half);
    }
  }
#pragma unroll
  for (int stride = kRowHeads; stride < kLanes; stride *= 2) {
    x[0] += __shfl_xor_sync(kAllLanes, x[0], stride);
  }
  return x[0];
}

// Sums acc[h][e] over the 32 / kLanes groups of a warp. Each group is left with kRowHeads * kLanes
// / 32 heads, in acc[0..]: the first of them is head lane / kLanes * (kRowHeads * kLanes / 32).
template <int kLanes>
__device__ inline void scatter_values(float (&acc)[kRowHeads][8], int lane) {
#pragma unroll
  for (int stride = 16, half = kRowHeads / 2; stride >= kLanes; stride /= 2, half /= 2) {
    const bool upper = (lane & stride) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const float sent = upper ? acc[i][e] : acc[i + half][e];
        const float kept = upper ? acc[i + half][e] : acc[i][e];
        acc[i][e] = kept + __shfl_xor_sync(kAllLanes, sent, stride);
      }
    }
  }
}

// What is known of a row's softmax: the largest score, and the sum of 2^(score - max).
struct SoftmaxState {
  float max = -INFINITY;
  float sum = 0;
};

// Takes kKeys more scores of head lane % 8 into account and makes them weights 2^(score - max);
// -inf, a key that is not there, becomes 0. `max` covers the keys of all groups of the warp, of
// which one at least must be there; `sum` counts this group's keys only. Rescales the sums of
// values acc[h][e], which only takes work when a maximum grew.
template <int kLanes, int kKeys>
__device__ inline void update_softmax(SoftmaxState& state, float (&score)[kKeys],
                                      float (&acc)[kRowHeads][8]) {
  float max = state.max;
#pragma unroll
  for (int j = 0; j < kKeys; ++j) max = fmaxf(max, score[j]);
#pragma unroll
  for (int stride = kLanes; stride < 32; stride *= 2) {
    max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, stride));
  }
  const float factor = exp2_fast(state.max - max);
  const bool rescale = max > state.max && state.max != -INFINITY;
  if (__any_sync(kAllLanes, rescale)) {
#pragma unroll
    for (int h = 0; h < kRowHeads; ++h) {
      const float f = __shfl_sync(kAllLanes, factor, h, kLanes);
#pragma unroll
      for (int e = 0; e < 8; ++e) acc[h][e] *= f;
    }
  }
  float sum = 0;
#pragma unroll
  for (int j = 0; j < kKeys; ++j) {
    score[j] = exp2_fast(score[j] - max);
    sum += score[j];
  }
  state.sum = fmaf(state.sum, factor, sum);
  state.max = max;
}

// acc[h][e] += weight * v[e], where `weight` is that of head lane % 8 and this group's key.
template <int kLanes>
__device__ inline void add_values(float (&acc)[kRowHeads][8], float weight, const float (&v)[8]) {
#pragma unroll
  for (int h = 0; h < kRowHeads; ++h) {
    const float w = __shfl_sync(kAllLanes, weight, h, kLanes);
#pragma unroll
    for (int e = 0; e < 8; ++e) acc[h][e] = fmaf(w, v[e], acc[h][e]);
  }
}

// Four elements of a row's weighted sum of values with the softmax that they belong to.
struct PartialRow {
  SoftmaxState softmax;
  float4 value;
};

// Merges the partial rows 0..n-1 in the order of their indices, kChunk loads at a time: softmax(i)
// and value(i) give the i-th; one among each chunk must have a key.
template <int kChunk, class Softmax, class Value>
__device__ inline PartialRow merge_rows(int n, Softmax softmax, Value value) {
  PartialRow total = {{}, make_float4(0, 0, 0, 0)};
  for (int first = 0; first < n; first += kChunk) {
    SoftmaxState s[kChunk];
    float4 v[kChunk];
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      s[i] = {};
      v[i] = make_float4(0, 0, 0, 0);
      if (first + i < n) {
        s[i] = softmax(first + i);
        v[i] = value(first + i);
      }
    }
    float max = total.softmax.max;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) max = fmaxf(max, s[i].max);
    const float factor = exp2_fast(total.softmax.max - max);
    total.softmax = {max, total.softmax.sum * factor};
    total.value.x *= factor;
    total.value.y *= factor;
    total.value.z *= factor;
    total.value.w *= factor;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const float w = exp2_fast(s[i].max - max);
      total.softmax.sum = fmaf(s[i].sum, w, total.softmax.sum);
      total.value.x = fmaf(v[i].x, w, total.value.x);
      total.value.y = fmaf(v[i].y, w, total.value.y);
      total.value.z = fmaf(v[i].z, w, total.value.z);
      total.value.w = fmaf(v[i].w, w, total.value.w);
    }
  }
  return total;
}

// Natural logarithm of the sum of e^score.
__device__ inline float log_sum_exp(const SoftmaxState& s) {
  constexpr float kLn2 = 0.693147180559945f;
  return fmaf(s.max, kLn2, logf(s.sum));
}

}  // namespace qwen::cuda::tile
