// Pieces of attention on tensor cores (mma.sync m16n8k16, F16 operands, FP32 sums; sm_80 on) for a
// warp of 16 query rows of one head and tiles of 64 keys. Fragments, with g = lane / 4 and t = lane
// % 4: of rows and sums, lane holds rows g and g + 8 and columns 2t, 2t + 1 of every eight.
//
// Scores have FP32's accuracy: both halves of q (tile/mma.cuh) take part. From a single F16 a score
// of 1,400 would be off by 0.7.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "backends/cuda/tile/attention.cuh"
#include "backends/cuda/tile/mma.cuh"

namespace qwen::cuda::tile {

inline constexpr int kTileRows = 16;
inline constexpr int kTileKeys = 64;

// Weights are 2^(kWeightBits + score - max), so that F16 has all its bits for those down to 2^-22.
inline constexpr float kWeightBits = 8;
inline constexpr float kWeightUnit = 0x1p-8f;  // 2^-kWeightBits

// A tile of keys or values in shared memory: 64 rows of head_dim F16. The padding makes the length
// of a row an odd multiple of 16 bytes, so the eight rows of a matrix load hit all banks.
template <int kHeadDim>
struct KeyTile {
  static constexpr int kStride = kHeadDim + 8;
  static constexpr int kElements = kTileKeys * kStride;
  static_assert(kHeadDim % 16 == 0);
};

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// Starts a copy of 16 bytes to shared memory; writes zeros instead if not `present`.
__device__ inline void copy_async(void* to, const void* from, bool present) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(present ? 16 : 0)
               : "memory");
}

// Waits for this thread's copies; others' need a barrier too.
__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Four 8 x 8 matrices of F16; lane i gives the address of row i % 8 of matrix i / 8.
__device__ inline void load_matrices(std::uint32_t (&m)[4], const __half* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ inline void load_matrices_transposed(std::uint32_t (&m)[4], const __half* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(shared_address(row))
               : "memory");
}

// Rounded to F16; `first` goes to the lower half.
__device__ inline std::uint32_t pack_rounded(float first, float second) {
  const __half2 x = __floats2half2_rn(first, second);
  return reinterpret_cast<const std::uint32_t&>(x);
}

__device__ inline void mma(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                           std::uint32_t b1) {
  mma(c, a[0], a[1], a[2], a[3], b0, b1);
}

// 16 query rows as A operands: steps of 16 dimensions.
template <int kHeadDim>
struct QueryTile {
  std::uint32_t hi[kHeadDim / 16][4];
  std::uint32_t lo[kHeadDim / 16][4];
};

// rows: the lane's two rows in memory, null for a row that is not there.
template <int kHeadDim>
__device__ inline void load_queries(QueryTile<kHeadDim>& q, const float* const (&rows)[2],
                                    int lane) {
#pragma unroll
  for (int step = 0; step < kHeadDim / 16; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // i % 2: row g or g + 8; i / 2: first or second eight columns
      const float* from = rows[i % 2];
      float2 x = make_float2(0, 0);
      if (from != nullptr) {
        x = *reinterpret_cast<const float2*>(from + 16 * step + 8 * (i / 2) + 2 * (lane % 4));
      }
      const HiLo first = split(x.x);
      const HiLo second = split(x.y);
      q.hi[step][i] = pack(first.hi, second.hi);
      q.lo[step][i] = pack(first.lo, second.lo);
    }
  }
}

// score (16 rows x 64 keys, eight keys per index) = kScale * q.k
template <int kHeadDim>
__device__ inline void score_tile(float (&score)[kTileKeys / 8][4], const QueryTile<kHeadDim>& q,
                                  const __half* keys, int lane) {
  constexpr int kStride = KeyTile<kHeadDim>::kStride;
  // Matrices: keys 0-7 and 8-15 of sixteen, of each the first and the second eight dimensions.
  const __half* row = keys + (lane / 16 * 8 + lane % 8) * kStride + lane / 8 % 2 * 8;
#pragma unroll
  for (int pair = 0; pair < kTileKeys / 16; ++pair) {
    float(&even)[4] = score[2 * pair];
    float(&odd)[4] = score[2 * pair + 1];
    float low[2][4] = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) even[i] = odd[i] = 0;
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
      std::uint32_t k[4];
      load_matrices(k, row + 16 * pair * kStride + 16 * step);
      mma(low[0], q.lo[step], k[0], k[1]);
      mma(low[1], q.lo[step], k[2], k[3]);
      mma(even, q.hi[step], k[0], k[1]);
      mma(odd, q.hi[step], k[2], k[3]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      even[i] = fmaf(low[0][i], 1 / kLoScale, even[i]);
      odd[i] = fmaf(low[1][i], 1 / kLoScale, odd[i]);
    }
  }
}

// Scores of keys after `limit` (of the lane's rows, counted from the tile's first key) become -inf.
__device__ inline void mask_tile(float (&score)[kTileKeys / 8][4], const int (&limit)[2],
                                 int lane) {
#pragma unroll
  for (int n = 0; n < kTileKeys / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (8 * n + 2 * (lane % 4) + i % 2 > limit[i / 2]) score[n][i] = -INFINITY;
    }
  }
}

// The running softmax of a lane's two rows. Weights are 2^(score * scale + bias), where bias =
// kWeightBits - the largest score so far, +inf before the first key. `sum` counts the lane's keys.
struct RowSoftmax {
  float bias[2] = {INFINITY, INFINITY};
  float sum[2] = {0, 0};
};

// Makes a tile's scores weights and rescales the sums of values that came before.
template <int kHeadDim>
__device__ inline void weigh_tile(RowSoftmax& rows, float (&score)[kTileKeys / 8][4], float scale,
                                  float (&acc)[kHeadDim / 8][4]) {
  float factor[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float max = -INFINITY;
#pragma unroll
    for (int n = 0; n < kTileKeys / 8; ++n) {
      max = fmaxf(max, fmaxf(score[n][2 * r], score[n][2 * r + 1]));
    }
    max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, 1));
    max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, 2));
    const float bias = fminf(rows.bias[r], fmaf(max, -scale, kWeightBits));
    factor[r] = bias == rows.bias[r] ? 1.0f : exp2_fast(bias - rows.bias[r]);
    rows.bias[r] = bias;
    // No key yet: all scores are -inf and must become 0, not -inf + inf.
    const float shift = bias == INFINITY ? 0.0f : bias;
    float sum = 0;
#pragma unroll
    for (int n = 0; n < kTileKeys / 8; ++n) {
#pragma unroll
      for (int c = 2 * r; c < 2 * r + 2; ++c) {
        score[n][c] = exp2_fast(fmaf(score[n][c], scale, shift));
        sum += score[n][c];
      }
    }
    rows.sum[r] = fmaf(rows.sum[r], factor[r], sum);
  }
  if (__any_sync(kAllLanes, factor[0] != 1.0f || factor[1] != 1.0f)) {
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[n][i] *= factor[i / 2];
    }
  }
}

// acc (16 rows x head_dim, eight dimensions per index) += weights (16 rows x 64 keys) * values
template <int kHeadDim>
__device__ inline void value_tile(float (&acc)[kHeadDim / 8][4],
                                  const float (&weight)[kTileKeys / 8][4], const __half* values,
                                  int lane) {
  constexpr int kStride = KeyTile<kHeadDim>::kStride;
  // Matrices: the first and the second eight dimensions of sixteen, of each keys 0-7 and 8-15.
  const __half* row = values + lane % 16 * kStride + lane / 16 * 8;
#pragma unroll
  for (int pair = 0; pair < kTileKeys / 16; ++pair) {
    // The sums of two products are, lane by lane, the operand of one.
    const float(&even)[4] = weight[2 * pair];
    const float(&odd)[4] = weight[2 * pair + 1];
    const std::uint32_t p[4] = {pack_rounded(even[0], even[1]), pack_rounded(even[2], even[3]),
                                pack_rounded(odd[0], odd[1]), pack_rounded(odd[2], odd[3])};
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
      std::uint32_t v[4];
      load_matrices_transposed(v, row + 16 * pair * kStride + 16 * step);
      mma(acc[2 * step], p, v[0], v[1]);
      mma(acc[2 * step + 1], p, v[2], v[3]);
    }
  }
}

// Natural logarithm of the sum of e^score of row r; `sum` is that of the whole row. kWeightBits -
// bias is exact wherever it is small.
__device__ inline float log_sum_exp(float bias, float sum) {
  return log_sum_exp(SoftmaxState{kWeightBits - bias, sum * kWeightUnit});
}

}  // namespace qwen::cuda::tile
