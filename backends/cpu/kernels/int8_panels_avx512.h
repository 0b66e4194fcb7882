// Products of many rows of 8-bit integers with panels, in which a lane is a row of the weight.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "backends/cpu/kernels/int8.h"
#include "backends/cpu/kernels/int8_panels.h"
#include "backends/cpu/kernels/levels_avx512.h"
#include "backends/cpu/kernels/transpose_avx512.h"
#include "core/int8.h"

namespace qwen::cpu {

template <class Block>
void pack(const std::byte* rows, std::size_t row_bytes, std::int64_t n_rows, std::int64_t n_cols,
          std::byte* panel) {
  using L = Levels<Block>;
  using Part = PanelPart<L::kSub, L::kHasMin>;
  constexpr int kGroups = L::kElements / 64;
  constexpr int kParts = L::kElements / L::kSub;  // of a unit
  for (std::int64_t first = 0; first < n_cols; first += L::kElements) {
    Part* const parts = reinterpret_cast<Part*>(panel) + first / L::kSub;
    const auto unit_of = [&](std::int64_t r, Block(&pair)[2]) {
      return unit_of_row<Block>(rows + static_cast<std::size_t>(r) * row_bytes,
                                first / L::kElements, n_cols, pair);
    };
    for (std::int64_t r = 0; r < Int8Format::kPanelRows; ++r) {
      alignas(64) float scales[16] = {};
      alignas(64) float mins[16] = {};
      if (r < n_rows) {
        Block pair[2];
        const Block* const unit = unit_of(r, pair);
        _mm512_store_ps(scales, L::scales(unit));
        if constexpr (L::kHasMin) _mm512_store_ps(mins, L::mins(unit));
      }
      for (int p = 0; p < kParts; ++p) {
        parts[p].scale[r] = scales[p];
        if constexpr (L::kHasMin) parts[p].min[r] = mins[p];
      }
    }
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      __m512i levels[16];
#pragma GCC unroll 16
      for (std::int64_t r = 0; r < Int8Format::kPanelRows; ++r) {
        Block pair[2];
        const Block* const unit = unit_of(std::min(r, n_rows - 1), pair);
        levels[r] = L::levels(unit, g);
      }
      transpose_16x16<Vnni>(levels);
#pragma GCC unroll 16
      for (int c = 0; c < 16; ++c) {
        Part& part = parts[(64 * g + 4 * c) / L::kSub];
        _mm512_storeu_si512(part.levels[c % (L::kSub / 4)], levels[c]);
      }
    }
  }
}

// total + products of four levels of each lane and the same four integers. GCC 12 would load these
// into a register first; measured (Xeon, 2 GHz): 1.8 instead of 2.1 of these per ns.
inline __m512i add_products(__m512i total, __m512i levels, const std::int8_t* integers) {
  using Four = std::int32_t __attribute__((may_alias));
  asm("vpdpbusd %2%{1to16%}, %1, %0"
      : "+v"(total)
      : "v"(levels), "m"(*reinterpret_cast<const Four*>(integers)));
  return total;
}

// total + the products of the fine planes, where x has them.
template <int kSub, bool kHasMin>
__m512 add_fine_parts(__m512 total, const PanelPart<kSub, kHasMin>* parts, const Int8Rows& x,
                      std::int64_t token) {
  constexpr int kPartsOfBlock = kInt8Block / kSub;
  const auto* const sums = reinterpret_cast<const std::int32_t*>(x.fine_sums);
  const std::int32_t* const listed = x.listed + token * (x.n_cols / kInt8Block);
  for (std::int32_t i = 0; i < x.n_listed[token]; ++i) {
    for (std::int64_t p = listed[i] * kPartsOfBlock; p < (listed[i] + 1) * kPartsOfBlock; ++p) {
      const std::int64_t at = x.at(token, p);
      __m512i dot = kHasMin ? _mm512_setzero_si512() : _mm512_set1_epi32(sums[at]);
#pragma GCC unroll 8
      for (int k = 0; k < kSub / 4; ++k) {
        dot = add_products(dot, _mm512_loadu_si512(parts[p].levels[k]), x.fine + at * kSub + 4 * k);
      }
      const __m512 step = _mm512_set1_ps(x.steps[at] / kInt8Fine);
      total = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot), step),
                              _mm512_loadu_ps(parts[p].scale), total);
    }
  }
  return total;
}

// kFine: takes the fine plane of all groups of x.
template <int kSub, bool kHasMin, int kTokens, bool kFine>
void multiply_tile(const Int8PanelArgs& g, std::int64_t first) {
  constexpr int kFours = kSub / 4;
  constexpr std::int64_t kTile = Int8Format::kPanelTokens;
  const std::int64_t n_parts = g.x.n_cols / kSub;
  const auto* const parts = reinterpret_cast<const PanelPart<kSub, kHasMin>*>(g.panel);
  const std::int64_t begin = g.x.at(g.tile * kTile + first, 0);
  const std::int8_t* x = g.x.coarse + begin * kSub;
  const std::int8_t* fine = g.x.fine + begin * kSub;
  const float* steps = g.x.steps + begin;
  const auto* sums = reinterpret_cast<const std::int32_t*>(g.x.sums) + begin;
  const auto* fine_sums = reinterpret_cast<const std::int32_t*>(g.x.fine_sums) + begin;
  const auto* values = reinterpret_cast<const float*>(g.x.sums) + begin;
  __m512 total[kTokens];
#pragma GCC unroll 16
  for (__m512& t : total) t = _mm512_setzero_ps();
  for (std::int64_t p = 0; p < n_parts; ++p) {
    __m512i levels[kFours];
#pragma GCC unroll 8
    for (int k = 0; k < kFours; ++k) levels[k] = _mm512_loadu_si512(parts[p].levels[k]);
    const __m512 scale = _mm512_loadu_ps(parts[p].scale);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      __m512i dot = kHasMin ? _mm512_setzero_si512() : _mm512_set1_epi32(sums[t]);
#pragma GCC unroll 8
      for (int k = 0; k < kFours; ++k) dot = add_products(dot, levels[k], x + t * kSub + 4 * k);
      float step = steps[t];
      if constexpr (kFine) {
        step /= kInt8Fine;
        static_assert(kInt8Fine == 128);
        dot = _mm512_slli_epi32(dot, 7);
        if constexpr (!kHasMin) dot = _mm512_add_epi32(dot, _mm512_set1_epi32(fine_sums[t]));
#pragma GCC unroll 8
        for (int k = 0; k < kFours; ++k) {
          dot = add_products(dot, levels[k], fine + t * kSub + 4 * k);
        }
      }
      const __m512 stepped = _mm512_mul_ps(_mm512_cvtepi32_ps(dot), _mm512_set1_ps(step));
      total[t] = _mm512_fmadd_ps(stepped, scale, total[t]);
      if constexpr (kHasMin) {
        total[t] =
            _mm512_fnmadd_ps(_mm512_loadu_ps(parts[p].min), _mm512_set1_ps(values[t]), total[t]);
      }
    }
    x += kTile * kSub;
    fine += kTile * kSub;
    steps += kTile;
    sums += kTile;
    fine_sums += kTile;
    values += kTile;
  }
  const auto mask = static_cast<__mmask16>((1u << g.n_rows) - 1);
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
    const std::int64_t token = g.tile * kTile + first + t;
    if constexpr (!kFine) total[t] = add_fine_parts(total[t], parts, g.x, token);
    _mm512_mask_storeu_ps(g.y + token * g.ldy, mask, total[t]);
  }
}

template <int kSub, bool kHasMin, bool kFine>
void multiply_tiles(const Int8PanelArgs& g) {
  std::int64_t t = 0;
  for (; t + 12 <= g.n_tokens; t += 12) multiply_tile<kSub, kHasMin, 12, kFine>(g, t);
  for (; t + 8 <= g.n_tokens; t += 8) multiply_tile<kSub, kHasMin, 8, kFine>(g, t);
  for (; t + 4 <= g.n_tokens; t += 4) multiply_tile<kSub, kHasMin, 4, kFine>(g, t);
  for (; t + 2 <= g.n_tokens; t += 2) multiply_tile<kSub, kHasMin, 2, kFine>(g, t);
  if (t < g.n_tokens) multiply_tile<kSub, kHasMin, 1, kFine>(g, t);
}

template <int kSub, bool kHasMin>
void multiply(const Int8PanelArgs& g) {
  if (g.x.mostly_fine) return multiply_tiles<kSub, kHasMin, true>(g);
  multiply_tiles<kSub, kHasMin, false>(g);
}

}  // namespace qwen::cpu
