// Products of a few rows of 8-bit integers with the rows of a weight as they lie in the file.
#pragma once

#include <immintrin.h>

#include "backends/cpu/kernels/formats.h"
#include "backends/cpu/kernels/int8.h"
#include "backends/cpu/kernels/levels_avx512.h"
#include "core/int8.h"

namespace qwen::cpu {

// total + the products of the fine planes, where x has them.
template <class Block>
__m512 add_fine_units(__m512 total, const std::byte* row, std::int64_t n_cols, const Int8Rows& x,
                      std::int64_t token) {
  using L = Levels<Block>;
  constexpr int kGroups = L::kElements / 64;
  const std::int32_t* const listed = x.listed + token * (x.n_cols / kInt8Block);
  for (std::int32_t k = 0; k < x.n_listed[token]; ++k) {
    const int group = listed[k];
    Block pair[2];
    const Block* const unit = unit_of_row<Block>(row, group / kGroups, n_cols, pair);
    const std::int64_t place = token * x.n_cols + 64 * group;
    const __m512i begin =
        L::kHasMin ? _mm512_setzero_si512() : _mm512_loadu_si512(x.fine_sums + place);
    const __m512i dot = _mm512_dpbusd_epi32(begin, L::levels(unit, group % kGroups),
                                            _mm512_loadu_si512(x.fine + place));
    const __m512i lanes = scale_of_lane(L::kSub, 64 * (group % kGroups));
    const __m512 scale = _mm512_permutexvar_ps(lanes, L::scales(unit));
    const __m512 step =
        _mm512_mul_ps(_mm512_loadu_ps(x.steps + place / 4), _mm512_set1_ps(1.0f / kInt8Fine));
    total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(scale, step), total);
  }
  return total;
}

// Units of kRows rows of the weight, which are row_bytes apart; calls f(units, first group of 64).
template <class Block, int kRows, class F>
void visit_units(const std::byte* row, std::size_t row_bytes, std::int64_t n_cols, F f) {
  using L = Levels<Block>;
  constexpr int kGroups = L::kElements / 64;
  Block pairs[kRows][2];
  // One call of f, so that it is inlined and its sums stay in registers.
  for (std::int64_t u = 0; u * L::kElements < n_cols; ++u) {
    const Block* units[kRows];
    for (int r = 0; r < kRows; ++r) {
      const std::byte* const first = row + r * row_bytes;
      prefetch<Vnni, static_cast<std::int64_t>(L::kBlocks * sizeof(Block))>(
          reinterpret_cast<const Block*>(first) + u * L::kBlocks);
      units[r] = unit_of_row<Block>(first, u, n_cols, pairs[r]);
    }
    f(units, u * kGroups);
  }
}

// Products of kRows rows with kTokens rows of x: several of either, so that additions need not wait
// for each other. kFine: takes the fine plane of all blocks of x.
template <class Block, int kRows, int kTokens, bool kFine>
void gemv_tile(const Int8GemvArgs& g, std::int64_t first_row, std::int64_t first_token) {
  using L = Levels<Block>;
  constexpr int kGroups = L::kElements / 64;
  const std::int64_t n_cols = g.x.n_cols;
  const std::int8_t* const coarse = g.x.coarse + first_token * n_cols;
  const std::int8_t* const fine = g.x.fine + first_token * n_cols;
  const float* const steps = g.x.steps + first_token * n_cols / 4;
  const std::byte* const sums = g.x.sums + first_token * n_cols;
  const std::byte* const fine_sums = g.x.fine_sums + first_token * n_cols;
  const auto scale_lanes = [](int group) { return scale_of_lane(L::kSub, 64 * group); };
  const std::byte* const row = g.weight + static_cast<std::size_t>(first_row) * g.row_bytes;

  __m512 total[kRows][kTokens];
  __m512 minima[kRows][kTokens];
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) total[r][t] = minima[r][t] = _mm512_setzero_ps();
  }
  visit_units<Block, kRows>(
      row, g.row_bytes, g.n_cols, [&](const Block* const* units, std::int64_t first_group) {
        __m512 scales[kRows];
        for (int r = 0; r < kRows; ++r) scales[r] = L::scales(units[r]);
        if constexpr (L::kHasMin) {
          static_assert(L::kSub == kInt8Block);
          constexpr auto kSubs = static_cast<__mmask16>((1u << L::kElements / L::kSub) - 1);
          for (int t = 0; t < kTokens; ++t) {
            const std::int64_t block = ((first_token + t) * n_cols + 64 * first_group) / kInt8Block;
            const __m512 sum =
                _mm512_maskz_loadu_ps(kSubs, reinterpret_cast<const float*>(g.x.sums) + block);
            for (int r = 0; r < kRows; ++r) {
              minima[r][t] = _mm512_fmadd_ps(L::mins(units[r]), sum, minima[r][t]);
            }
          }
        }
#pragma GCC unroll 4
        for (int i = 0; i < kGroups; ++i) {
          const std::int64_t at = 64 * (first_group + i);
          __m512i levels[kRows];
          __m512 scale[kRows];
          for (int r = 0; r < kRows; ++r) {
            levels[r] = L::levels(units[r], i);
            scale[r] = _mm512_permutexvar_ps(scale_lanes(i), scales[r]);
          }
#pragma GCC unroll 4
          for (int t = 0; t < kTokens; ++t) {
            const std::int64_t place = t * n_cols + at;
            const __m512i x = _mm512_loadu_si512(coarse + place);
            const __m512i begin =
                L::kHasMin ? _mm512_setzero_si512() : _mm512_loadu_si512(sums + place);
            __m512 step = _mm512_loadu_ps(steps + place / 4);
            if constexpr (kFine) step = _mm512_mul_ps(step, _mm512_set1_ps(1.0f / kInt8Fine));
            for (int r = 0; r < kRows; ++r) {
              __m512i dot = _mm512_dpbusd_epi32(begin, levels[r], x);
              if constexpr (kFine) {
                static_assert(kInt8Fine == 128);
                dot = _mm512_slli_epi32(dot, 7);
                if constexpr (!L::kHasMin) {
                  dot = _mm512_add_epi32(dot, _mm512_loadu_si512(fine_sums + place));
                }
                dot = _mm512_dpbusd_epi32(dot, levels[r], _mm512_loadu_si512(fine + place));
              }
              total[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(scale[r], step),
                                            total[r][t]);
            }
          }
        }
      });

  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) {
      __m512 all = total[r][t];
      if constexpr (!kFine) {
        all = add_fine_units<Block>(all, row + r * g.row_bytes, g.n_cols, g.x, first_token + t);
      }
      if constexpr (L::kHasMin) all = _mm512_sub_ps(all, minima[r][t]);
      g.y[(first_token + t) * g.ldy + first_row + r] = _mm512_reduce_add_ps(all);
    }
  }
}

template <class Block, int kRows, int kTokens>
void gemv_rows(const Int8GemvArgs& g, std::int64_t& row, std::int64_t first_token) {
  for (; row + kRows <= g.row_end; row += kRows) {
    if (g.x.mostly_fine) {
      gemv_tile<Block, kRows, kTokens, true>(g, row, first_token);
    } else {
      gemv_tile<Block, kRows, kTokens, false>(g, row, first_token);
    }
  }
}

template <class Block, int kTokens>
void gemv_tokens(const Int8GemvArgs& g, std::int64_t first_token) {
  std::int64_t row = g.row_begin;
  gemv_rows<Block, 2, kTokens>(g, row, first_token);
  gemv_rows<Block, 1, kTokens>(g, row, first_token);
}

template <class Block>
void gemv(const Int8GemvArgs& g) {
  std::int64_t t = 0;
  for (; t + 3 <= g.n_tokens; t += 3) gemv_tokens<Block, 3>(g, t);
  if (g.n_tokens - t == 2) return gemv_tokens<Block, 2>(g, t);
  if (g.n_tokens - t == 1) gemv_tokens<Block, 1>(g, t);
}

}  // namespace qwen::cpu
