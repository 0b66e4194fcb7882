// Dot products of 8 weight rows with up to 8 tokens, one warp, on tensor cores. The tokens' halves
// (mma.cuh) are the rows of A (0-7: hi, 8-15: lo), the weights the columns of B. So a step of 16
// columns costs one MMA whatever the number of tokens, and the products are those of FP32.
//
// Tokens lie in shared memory as [token][hi, lo][stride] halves, in chunks of 32 columns; within a
// chunk lane t of a quad owns the 8 halves at 8t. Formats that hold elements 4t.. and 16+4t.. in a
// lane (formats.cuh) are `permuted`: staged that way.
#pragma once

#include <cuda_bf16.h>

#include "backends/cuda/tile/formats.cuh"
#include "backends/cuda/tile/mma.cuh"

namespace qwen::cuda::tile {

constexpr int kRows = 8;    // weight rows of a tile
constexpr int kTokens = 8;  // tokens at most

// Halves from one (token, hi or lo) row to the next: whole chunks, and an odd number of 64-byte
// units, so that the rows of two tokens never meet in a bank.
__host__ __device__ constexpr int token_stride(int n_cols) {
  const int chunks = (n_cols + 31) / 32;
  return (chunks | 1) * 32;
}

// The same for every warp of the block.
struct Tokens {
  const __half* data;
  int stride;
  int n_tokens;
};

// The 8 halves of token `i` (hi or lo) in `chunk` that lane t owns; zero beyond the tokens.
__device__ inline uint4 fragment(const Tokens& x, int i, int part, int chunk, int t) {
  if (i >= x.n_tokens) return {0, 0, 0, 0};
  return *reinterpret_cast<const uint4*>(x.data + (2 * i + part) * x.stride + 32 * chunk + 8 * t);
}

// A weight matrix as the kernels see it.
struct Weights {
  const std::byte* data;
  std::int64_t n_blocks;  // quantised formats
  int n_rows, n_cols;
};

// acc[0], acc[1]: token i, weight rows 2t and 2t + 1, of hi; acc[2], acc[3] of lo. (lane 4 i + t)
__device__ inline float total(float hi, float lo) { return (hi + lo / kLoScale) / kScale; }

// Of each format: kBatch chunks of a warp are in flight, twice over (896 columns are 28 chunks, 4
// for each of 7 warps), and kBlocksPerSm blocks fit on a multiprocessor with the registers that
// this takes.

// An element of a format without blocks, exact.
__device__ inline float to_float(float v) { return v; }
__device__ inline float to_float(__half v) { return __half2float(v); }
__device__ inline float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }

// ---- F16: the weights are B as they are. kRagged: the columns are no multiple of 32.
template <bool kRagged>
struct Halves {
  static constexpr bool kPermuted = false;
  static constexpr bool kHasMin = false;
  static constexpr int kAccumulators = 4;
  static constexpr int kBatch = 4, kBlocksPerSm = kRagged ? 2 : 3;
  struct Raw {
    uint4 w;
  };
  __device__ static Raw load(const Weights& w, std::int64_t row, int chunk, int t) {
    const auto* from =
        reinterpret_cast<const __half*>(w.data) + row * w.n_cols + 32 * chunk + 8 * t;
    if constexpr (kRagged) {
      __half v[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = 32 * chunk + 8 * t + i < w.n_cols ? from[i] : __half();
      return {{pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7])}};
    } else {
      return {__ldg(reinterpret_cast<const uint4*>(from))};
    }
  }
  __device__ static void step(float (&acc)[4], const Raw& r, const uint4& hi, const uint4& lo, int,
                              int, const float*) {
    mma(acc, hi.x, lo.x, hi.y, lo.y, r.w.x, r.w.y);
    mma(acc, hi.z, lo.z, hi.w, lo.w, r.w.z, r.w.w);
  }
  __device__ static void finish(const float (&acc)[4], float& a, float& b) {
    a = total(acc[0], acc[2]);
    b = total(acc[1], acc[3]);
  }
};

// ---- F32 and BF16: the weights are split like the tokens, unscaled.
template <class T, bool kRagged>
struct Wide {
  static constexpr bool kPermuted = false;
  static constexpr bool kHasMin = false;
  static constexpr int kAccumulators = 8;
  static constexpr int kBatch = 2, kBlocksPerSm = 2;
  struct Raw {
    float w[8];
  };
  __device__ static Raw load(const Weights& w, std::int64_t row, int chunk, int t) {
    const T* from = reinterpret_cast<const T*>(w.data) + row * w.n_cols + 32 * chunk + 8 * t;
    Raw r;
    if constexpr (!kRagged) {
      constexpr int kVectors = static_cast<int>(sizeof(T)) / 2;
      uint4 bits[kVectors];
#pragma unroll
      for (int v = 0; v < kVectors; ++v) bits[v] = __ldg(reinterpret_cast<const uint4*>(from) + v);
      const T* values = reinterpret_cast<const T*>(bits);
#pragma unroll
      for (int i = 0; i < 8; ++i) r.w[i] = to_float(values[i]);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        r.w[i] = 32 * chunk + 8 * t + i < w.n_cols ? to_float(from[i]) : 0.0f;
      }
    }
    return r;
  }
  __device__ static void step(float (&acc)[8], const Raw& r, const uint4& hi, const uint4& lo, int,
                              int, const float*) {
    std::uint32_t w_hi[4], w_lo[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const HiLo a = split(r.w[2 * i] / kScale);
      const HiLo b = split(r.w[2 * i + 1] / kScale);
      w_hi[i] = pack(a.hi, b.hi);
      w_lo[i] = pack(a.lo, b.lo);
    }
    float(&main)[4] = reinterpret_cast<float(&)[4]>(acc[0]);
    float(&rest)[4] = reinterpret_cast<float(&)[4]>(acc[4]);
    mma(main, hi.x, lo.x, hi.y, lo.y, w_hi[0], w_hi[1]);
    mma(main, hi.z, lo.z, hi.w, lo.w, w_hi[2], w_hi[3]);
    mma(rest, hi.x, lo.x, hi.y, lo.y, w_lo[0], w_lo[1]);
    mma(rest, hi.z, lo.z, hi.w, lo.w, w_lo[2], w_lo[3]);
  }
  __device__ static void finish(const float (&acc)[8], float& a, float& b) {
    a = total(acc[0], acc[2]) + total(acc[4], acc[6]) / kLoScale;
    b = total(acc[1], acc[3]) + total(acc[5], acc[7]) / kLoScale;
  }
};

// ---- Quantised: the quants, exact as halves, are B; each chunk's sums are scaled in FP32. `sums`
// holds the chunk's two half sums of token i's columns (times kScale), for formats with a minimum.
template <class Format>
struct Blocks {
  // Q5_1 spills with room for four. (H200, Q4_K_M 0.5B: with 3 blocks of 8 warps and one batch less
  // in flight 1,220 instead of 1,362 tok/s)
  static constexpr int kBlocks = Format::kBlock != 32 ? 2 : Format::kHasMin ? 3 : 4;
  static constexpr bool kPermuted = true;
  static constexpr bool kHasMin = Format::kHasMin;
  static constexpr int kAccumulators = 4;
  static constexpr int kBatch = 4, kBlocksPerSm = kBlocks;
  using Raw = typename Format::Raw;
  __device__ static Raw load(const Weights& w, std::int64_t row, int chunk, int t) {
    return Format::load(w.data, w.n_blocks, row * (w.n_cols / 32) + chunk, t);
  }
  __device__ static void scale(float (&acc)[4], const float (&c)[4], float d, float m, int lane_row,
                               float sum) {
    // The scales of this lane's columns 2t and 2t + 1 are in the lanes of those rows.
    const float d0 = __shfl_sync(0xffffffffu, d, lane_row);
    const float d1 = __shfl_sync(0xffffffffu, d, lane_row + 4);
    acc[0] += d0 * c[0];
    acc[1] += d1 * c[1];
    acc[2] += d0 * c[2];
    acc[3] += d1 * c[3];
    if constexpr (kHasMin) {
      acc[0] += __shfl_sync(0xffffffffu, m, lane_row) * sum;
      acc[1] += __shfl_sync(0xffffffffu, m, lane_row + 4) * sum;
    }
  }
  __device__ static void step(float (&acc)[4], const Raw& r, const uint4& hi, const uint4& lo,
                              int chunk, int t, const float* sums) {
    const int s = chunk % 8;
    const Quads q = Format::quads(r, s, t);
    const Scales f = Format::scales(r, s);
    const uint2 low = bytes_to_halves(q.low, Format::kBias);
    const uint2 high = bytes_to_halves(q.high, Format::kBias);
    const int lane_row = 8 * t;
    float c[4] = {0, 0, 0, 0};
    mma(c, hi.x, lo.x, hi.y, lo.y, low.x, low.y);
    if constexpr (Format::kPerHalf) {
      scale(acc, c, f.d_low, f.m_low, lane_row, kHasMin ? sums[0] : 0);
      float e[4] = {0, 0, 0, 0};
      mma(e, hi.z, lo.z, hi.w, lo.w, high.x, high.y);
      scale(acc, e, f.d_high, f.m_high, lane_row, kHasMin ? sums[1] : 0);
    } else {
      mma(c, hi.z, lo.z, hi.w, lo.w, high.x, high.y);
      scale(acc, c, f.d_low, f.m_low, lane_row, kHasMin ? sums[0] + sums[1] : 0);
    }
  }
  __device__ static void finish(const float (&acc)[4], float& a, float& b) {
    a = total(acc[0], acc[2]);
    b = total(acc[1], acc[3]);
  }
};

}  // namespace qwen::cuda::tile
