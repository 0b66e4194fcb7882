// Products of a few rows of 8-bit integers with the rows of a weight as they lie in the file.
#pragma once

#include <immintrin.h>

#include "backends/cpu/kernels/formats.h"
#include "backends/cpu/kernels/int8.h"
#include "backends/cpu/kernels/int8_dot_avx2.h"
#include "backends/cpu/kernels/levels_avx2.h"
#include "core/int8.h"

namespace qwen::cpu {

// Rows of x with groups of four columns, and a row of the weight.
template <class Arch, class Block>
struct Gemv {
  using L = Levels32<Arch, Block>;
  using LevelsFactor = Factor<Arch, L>;
  static constexpr int kBlocks = Block::kElements / kInt8Block;  // of 32 columns, in one of these
  static constexpr int kScales = Block::kElements / L::kSub;

  static __m256i load(const void* p) { return Bytes32<Arch>::load(p); }
  // What sums of products begin with.
  static __m256i begin(const std::byte* sums, std::int64_t place) {
    return L::kOffset == 0 ? _mm256_setzero_si256() : load(sums + place);
  }

  // total + the products of the fine planes, where x has them.
  static __m256 add_fine(__m256 total, const Block* row, const Int8Rows& x, std::int64_t token) {
    const std::int32_t* const listed = x.listed + token * (x.n_cols / kInt8Block);
    for (std::int32_t k = 0; k < x.n_listed[token]; ++k) {
      const Block& block = row[listed[k] / kBlocks];
      const int i = listed[k] % kBlocks;
      const std::int64_t place = token * x.n_cols + kInt8Block * listed[k];
      const __m256i dot =
          LevelsFactor(L::levels(block, i)).add_to(begin(x.fine_sums, place), load(x.fine + place));
      float scales[kScales];
      L::scales(block, scales);
      const __m256 step =
          _mm256_mul_ps(_mm256_loadu_ps(x.steps + place / 4), _mm256_set1_ps(1.0f / kInt8Fine));
      total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot),
                              _mm256_mul_ps(L::scale(block, scales, i), step), total);
    }
    return total;
  }

  static float sum_of_lanes(__m256 v) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
  }

  // Products of kRows rows with kTokens rows of x: several of either, so that additions need not
  // wait for each other. kFine: takes the fine plane of all blocks of x.
  template <int kRows, int kTokens, bool kFine>
  static void tile(const Int8GemvArgs& g, std::int64_t first_row, std::int64_t first_token) {
    const Block* row[kRows];
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
      row[r] = reinterpret_cast<const Block*>(g.weight + static_cast<std::size_t>(first_row + r) *
                                                             g.row_bytes);
    }
    const std::int64_t n_cols = g.x.n_cols;
    const std::int8_t* const coarse = g.x.coarse + first_token * n_cols;
    const std::int8_t* const fine = g.x.fine + first_token * n_cols;
    const float* const steps = g.x.steps + first_token * n_cols / 4;
    const std::byte* const sums = g.x.sums + first_token * n_cols;
    const std::byte* const fine_sums = g.x.fine_sums + first_token * n_cols;
    const float* const values =
        reinterpret_cast<const float*>(g.x.sums) + first_token * n_cols / kInt8Block;
    const std::int64_t n_blocks = g.n_cols / Block::kElements;

    // All loops over these are unrolled, so that they stay in registers.
    __m256 total[kRows][kTokens];
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) total[r][t] = _mm256_setzero_ps();
    }
    for (std::int64_t b = 0; b < n_blocks; ++b) {
      float scales[kRows][kScales];
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) {
        const Block& block = row[r][b];
        prefetch<Arch, static_cast<std::int64_t>(sizeof(Block))>(&block);
        L::scales(block, scales[r]);
        if constexpr (L::kHasMin) {
#pragma GCC unroll 4
          for (int t = 0; t < kTokens; ++t) {
            total[r][t] = L::less_minima(total[r][t], block,
                                         values + t * (n_cols / kInt8Block) + b * kBlocks);
          }
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < kBlocks; ++i) {
        const std::int64_t at = kInt8Block * (b * kBlocks + i);
#pragma GCC unroll 2
        for (int r = 0; r < kRows; ++r) {
          const LevelsFactor levels(L::levels(row[r][b], i));
          const __m256 scale = L::scale(row[r][b], scales[r], i);
#pragma GCC unroll 4
          for (int t = 0; t < kTokens; ++t) {
            const std::int64_t place = t * n_cols + at;
            __m256 step = _mm256_loadu_ps(steps + t * (n_cols / 4) + at / 4);
            __m256i dot = levels.add_to(begin(sums, place), load(coarse + place));
            if constexpr (kFine) {
              static_assert(kInt8Fine == 128);
              step = _mm256_mul_ps(step, _mm256_set1_ps(1.0f / kInt8Fine));
              dot = _mm256_slli_epi32(dot, 7);
              if constexpr (L::kOffset != 0) {
                dot = _mm256_add_epi32(dot, load(fine_sums + place));
              }
              dot = levels.add_to(dot, load(fine + place));
            }
            total[r][t] =
                _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(scale, step), total[r][t]);
          }
        }
      }
    }
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        if constexpr (!kFine) total[r][t] = add_fine(total[r][t], row[r], g.x, first_token + t);
        g.y[(first_token + t) * g.ldy + first_row + r] = sum_of_lanes(total[r][t]);
      }
    }
  }

  template <int kTokens, bool kFine>
  static void tokens(const Int8GemvArgs& g, std::int64_t first_token) {
    std::int64_t row = g.row_begin;
    for (; row + 2 <= g.row_end; row += 2) tile<2, kTokens, kFine>(g, row, first_token);
    if (row < g.row_end) tile<1, kTokens, kFine>(g, row, first_token);
  }

  template <int kTokens>
  static void tokens(const Int8GemvArgs& g, std::int64_t first_token) {
    if (g.x.mostly_fine) return tokens<kTokens, true>(g, first_token);
    tokens<kTokens, false>(g, first_token);
  }

  static void run(const Int8GemvArgs& g) {
    std::int64_t t = 0;
    for (; t + 3 <= g.n_tokens; t += 3) tokens<3>(g, t);
    if (g.n_tokens - t == 2) return tokens<2>(g, t);
    if (g.n_tokens - t == 1) tokens<1>(g, t);
  }
};

}  // namespace qwen::cpu
