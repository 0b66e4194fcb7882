// The one dense inner loop: prefill products and both products of attention go through it.
#pragma once

#include "backends/cpu/kernels/kernels.h"
#include "backends/cpu/kernels/simd.h"

namespace qwen::cpu {

// kRows rows of a times kVectors vectors of columns of b, held in registers over the whole of k.
template <class Arch, int kRows, int kVectors>
void matmul_tile(const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float* c,
                 std::int64_t ldc, std::int64_t k, bool accumulate) {
  using V = typename Simd<Arch>::V;
  constexpr std::int64_t kLanes = Simd<Arch>::kLanes;
  V sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      sum[i][j] = accumulate ? V::load_unaligned(c + i * ldc + j * kLanes) : V(0.0f);
    }
  }
  for (std::int64_t p = 0; p < k; ++p) {
    V column[kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) column[j] = V::load_unaligned(b + p * ldb + j * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const V value(a[i * lda + p]);
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) sum[i][j] = Simd<Arch>::fma(value, column[j], sum[i][j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) sum[i][j].store_unaligned(c + i * ldc + j * kLanes);
  }
}

// All columns of kRows rows; with kRows - 1, ... for the last rows.
template <class Arch, int kRows>
void matmul_rows(const MatmulArgs& g, std::int64_t row, std::int64_t n_rows) {
  if constexpr (kRows > 1) {
    if (n_rows < kRows) return matmul_rows<Arch, kRows - 1>(g, row, n_rows);
  }
  constexpr std::int64_t kLanes = Simd<Arch>::kLanes;
  const float* a = g.a + row * g.lda;
  float* c = g.c + row * g.ldc;
  std::int64_t j = 0;
  for (; j + 2 * kLanes <= g.n; j += 2 * kLanes) {
    matmul_tile<Arch, kRows, 2>(a, g.lda, g.b + j, g.ldb, c + j, g.ldc, g.k, g.accumulate);
  }
  if (j < g.n)
    matmul_tile<Arch, kRows, 1>(a, g.lda, g.b + j, g.ldb, c + j, g.ldc, g.k, g.accumulate);
}

template <class Arch>
void matmul(const MatmulArgs& g) {
  constexpr int kRows = Simd<Arch>::kTileRows;
  for (std::int64_t i = 0; i < g.m; i += kRows) {
    matmul_rows<Arch, kRows>(g, i, g.m - i < kRows ? g.m - i : kRows);
  }
}

// Blocks of kTranspose x kTranspose in registers, the edges element by element.
template <class Arch>
void transpose(const float* src, std::int64_t lds, float* dst, std::int64_t ldd, std::int64_t rows,
               std::int64_t cols) {
  constexpr std::int64_t kSize = Simd<Arch>::kTranspose;
  const std::int64_t whole_rows = rows / kSize * kSize;
  const std::int64_t whole_cols = cols / kSize * kSize;
  for (std::int64_t c = 0; c < whole_cols; c += kSize) {
    for (std::int64_t r = 0; r < whole_rows; r += kSize) {
      Simd<Arch>::transpose(src + r * lds + c, lds, dst + c * ldd + r, ldd);
    }
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = r < whole_rows ? whole_cols : 0; c < cols; ++c) {
      dst[c * ldd + r] = src[r * lds + c];
    }
  }
}

}  // namespace qwen::cpu
