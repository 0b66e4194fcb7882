// Products of a few rows of 8-bit integers with the rows of a weight as they lie in the file.
#pragma once

#include <immintrin.h>

#include "backends/cpu/kernels/formats.h"
#include "backends/cpu/kernels/int8.h"
#include "backends/cpu/kernels/levels_avx512.h"
#include "core/int8.h"

namespace qwen::cpu {

// One row of the weight as units of levels and scales; calls f(unit, group of the row).
template <class Block, class F>
void visit_units(const std::byte* row, std::int64_t n_cols, F f) {
  using L = Levels<Block>;
  constexpr int kGroups = L::kElements / 64;
  const auto* block = reinterpret_cast<const Block*>(row);
  const std::int64_t whole = n_cols / L::kElements;
  for (std::int64_t u = 0; u < whole; ++u, block += L::kBlocks) {
    prefetch<Vnni, static_cast<std::int64_t>(L::kBlocks * sizeof(Block))>(block);
    f(block, u * kGroups);
  }
  if (whole * L::kElements < n_cols) {  // half of a pair
    Block pair[2];
    f(unit_of_row<Block>(row, whole, n_cols, pair), whole * kGroups);
  }
}

template <class Block, int kTokens>
void gemv_rows(const Int8GemvArgs& g, std::int64_t first_token) {
  using L = Levels<Block>;
  constexpr int kGroups = L::kElements / 64;
  const std::int64_t n_cols = g.x.n_cols;
  const std::int8_t* const coarse = g.x.coarse + first_token * n_cols;
  const std::int8_t* const fine = g.x.fine + first_token * n_cols;
  const float* const steps = g.x.steps + first_token * n_cols / 4;
  const std::byte* const sums = g.x.sums + first_token * n_cols;
  const std::byte* const fine_sums = g.x.fine_sums + first_token * n_cols;
  const auto scale_lanes = [](int group) { return scale_of_lane(L::kSub, 64 * group); };

  for (std::int64_t r = g.row_begin; r < g.row_end; ++r) {
    const std::byte* const row = g.weight + static_cast<std::size_t>(r) * g.row_bytes;
    __m512 total[kTokens];
    for (__m512& t : total) t = _mm512_setzero_ps();
    visit_units<Block>(row, g.n_cols, [&](const Block* unit, std::int64_t first_group) {
      const __m512 scales = L::scales(unit);
      const __m512 mins = L::mins(unit);
#pragma GCC unroll 4
      for (int i = 0; i < kGroups; ++i) {
        const __m512i levels = L::levels(unit, i);
        const __m512 scale = _mm512_permutexvar_ps(scale_lanes(i), scales);
        const std::int64_t at = 64 * (first_group + i);
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          const std::int64_t place = t * n_cols + at;
          const __m512i begin =
              L::kHasMin ? _mm512_setzero_si512() : _mm512_loadu_si512(sums + place);
          const __m512i dot =
              _mm512_dpbusd_epi32(begin, levels, _mm512_loadu_si512(coarse + place));
          const __m512 factor = _mm512_mul_ps(scale, _mm512_loadu_ps(steps + place / 4));
          total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), factor, total[t]);
          if constexpr (L::kHasMin) {
            const __m512 min = _mm512_permutexvar_ps(scale_lanes(i), mins);
            total[t] = _mm512_fnmadd_ps(
                min, _mm512_loadu_ps(reinterpret_cast<const float*>(sums + place)), total[t]);
          }
        }
      }
    });
    for (int t = 0; t < kTokens; ++t) {
      const std::int64_t token = first_token + t;
      const std::int32_t* const listed = g.x.listed + token * (n_cols / kInt8Block);
      for (std::int32_t k = 0; k < g.x.n_listed[token]; ++k) {
        const int group = listed[k];
        Block pair[2];
        const Block* const unit = unit_of_row<Block>(row, group / kGroups, g.n_cols, pair);
        const std::int64_t place = t * n_cols + 64 * group;
        const __m512i begin =
            L::kHasMin ? _mm512_setzero_si512() : _mm512_loadu_si512(fine_sums + place);
        const __m512i dot = _mm512_dpbusd_epi32(begin, L::levels(unit, group % kGroups),
                                                _mm512_loadu_si512(fine + place));
        const __m512 scale = _mm512_permutexvar_ps(scale_lanes(group % kGroups), L::scales(unit));
        const __m512 factor = _mm512_mul_ps(scale, _mm512_mul_ps(_mm512_loadu_ps(steps + place / 4),
                                                                 _mm512_set1_ps(1.0f / kInt8Fine)));
        total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), factor, total[t]);
      }
      g.y[token * g.ldy + r] = _mm512_reduce_add_ps(total[t]);
    }
  }
}

template <class Block>
void gemv(const Int8GemvArgs& g) {
  std::int64_t t = 0;
  for (; t + 3 <= g.n_tokens; t += 3) gemv_rows<Block, 3>(g, t);
  if (g.n_tokens - t == 2) return gemv_rows<Block, 2>(g, t);
  if (g.n_tokens - t == 1) gemv_rows<Block, 1>(g, t);
}

}  // namespace qwen::cpu
