// Products of rows of 8-bit integers with panels, in which a lane is a row of the weight.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

#include "backends/cpu/kernels/int8.h"
#include "backends/cpu/kernels/int8_dot_avx2.h"
#include "backends/cpu/kernels/panels.h"
#include "backends/cpu/kernels/words_avx2.h"
#include "core/int8.h"

namespace qwen::cpu {

// GCC 12 would add up in another order, for which the registers do not suffice.
template <class Arch>
inline void keep_order(__m256i& sum) {
  asm("" : "+x"(sum));
}

// dots + the products of a part of a panel with the integers of some rows of x, kSub bytes apart:
// one register for each half of the panel's rows.
template <class Arch, class Panel, int kTokens>
inline void add_products(const typename Panel::Part& part, const std::int8_t* x,
                         __m256i (&dots)[kTokens][2]) {
  using LevelsFactor = Factor<Arch, Panel>;
#pragma GCC unroll 8
  for (int from = 0; from < Panel::kSub / 4; from += LevelsFactor::kChain) {
    __m256i chains[kTokens][2];
#pragma GCC unroll 8
    for (int k = from; k < from + LevelsFactor::kChain; ++k) {
      const Words<Arch>& levels = part.levels(k);
      const LevelsFactor low(std::bit_cast<__m256i>(levels.v[0]));
      const LevelsFactor high(std::bit_cast<__m256i>(levels.v[1]));
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        std::int32_t four;
        std::memcpy(&four, x + t * Panel::kSub + 4 * k, 4);
        const __m256i integers = _mm256_set1_epi32(four);
        chains[t][0] = k == from ? low.first(integers) : low.next(chains[t][0], integers);
        keep_order<Arch>(chains[t][0]);
        chains[t][1] = k == from ? high.first(integers) : high.next(chains[t][1], integers);
        keep_order<Arch>(chains[t][1]);
      }
    }
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        dots[t][h] = LevelsFactor::add_chain(dots[t][h], chains[t][h]);
        keep_order<Arch>(dots[t][h]);
      }
    }
  }
}

// total + the dots times their steps and scales, for each half of a panel's rows.
template <class Arch>
inline void add_scaled(const Floats<Arch>& scale, const __m256i (&dots)[2], float step,
                       __m256 (&total)[2]) {
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const __m256 stepped = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[h]), _mm256_set1_ps(step));
    total[h] = _mm256_fmadd_ps(stepped, std::bit_cast<__m256>(scale.v[h]), total[h]);
  }
}

// What sums of products begin with.
template <class Panel>
inline __m256i first_sum(const std::int32_t* sums) {
  return Panel::kHasMin || Panel::kSigned ? _mm256_setzero_si256() : _mm256_set1_epi32(*sums);
}

// total + the products of a part of a panel with one plane of rows of x, whose entries begin at
// `at`.
template <class Arch, class Panel, int kTokens, bool kFine>
[[gnu::always_inline]] inline void add_part(const typename Panel::Part& part, const Int8Rows& x,
                                            std::int64_t at, __m256 (&total)[kTokens][2]) {
  const auto* const sums = reinterpret_cast<const std::int32_t*>(kFine ? x.fine_sums : x.sums) + at;
  __m256i dots[kTokens][2];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) dots[t][0] = dots[t][1] = first_sum<Panel>(sums + t);
  add_products<Arch, Panel>(part, (kFine ? x.fine : x.coarse) + at * Panel::kSub, dots);
  const Floats<Arch> scale = part.scale();
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    const float step = x.steps[at + t];
    add_scaled<Arch>(scale, dots[t], kFine ? step / kInt8Fine : step, total[t]);
  }
  if constexpr (Panel::kHasMin && !kFine) {
    const auto* const values = reinterpret_cast<const float*>(x.sums) + at;
    const Floats<Arch> min = part.min();
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const __m256 value = _mm256_set1_ps(values[t]);
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        total[t][h] = _mm256_fnmadd_ps(std::bit_cast<__m256>(min.v[h]), value, total[t][h]);
      }
    }
  }
  // Part after part: else what they ask for would come before all of them.
  asm volatile("" : "+x"(total[0][0]));
}

// total + the products of a panel with one plane of rows of x, the first of which is `row`.
template <class Arch, class Panel, int kTokens, bool kFine>
inline void add_plane(const Int8PanelArgs& g, std::int64_t row, __m256 (&total)[kTokens][2]) {
  std::int64_t at = g.x.at(row, 0);
  stream_parts(
      Panel(g.panel), g.x.n_cols, [&](const auto& part) __attribute__((always_inline)) {
        add_part<Arch, Panel, kTokens, kFine>(part, g.x, at, total);
        at += g.x.tile;
      });
}

// total + the products with the listed blocks of the fine plane.
template <class Arch, class Panel>
inline void add_listed(const Int8PanelArgs& g, std::int64_t row, __m256 (&total)[2]) {
  constexpr int kParts = kInt8Block / Panel::kSub;  // of a block of x
  const Panel panel(g.panel);
  const FineBlock* const listed = g.x.listed + row * (g.x.n_cols / kInt8Block);
  for (const FineBlock& fine : std::span(listed, g.x.n_listed[row])) {
    for (int p = 0; p < kParts; ++p) {
      const auto& part = panel.part(fine.block * kParts + p);
      __m256i dots[1][2];
      dots[0][0] = dots[0][1] = first_sum<Panel>(fine.sums + p);
      add_products<Arch, Panel>(part, fine.values + p * Panel::kSub, dots);
      add_scaled<Arch>(part.scale(), dots[0], fine.step, total);
    }
  }
}

template <class Arch, class Panel, int kTokens>
void multiply_tokens(const Int8PanelArgs& g, std::int64_t first) {
  const std::int64_t row = g.tile * g.x.tile + first;
  __m256 total[kTokens][2];
#pragma GCC unroll 4
  for (auto& t : total) t[0] = t[1] = _mm256_setzero_ps();
  add_plane<Arch, Panel, kTokens, false>(g, row, total);
  if (g.x.all_fine) add_plane<Arch, Panel, kTokens, true>(g, row, total);
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    if (!g.x.all_fine) add_listed<Arch, Panel>(g, row + t, total[t]);
    float results[kPanelRows];
    _mm256_storeu_ps(results, total[t][0]);
    _mm256_storeu_ps(results + 8, total[t][1]);
    std::copy_n(results, g.n_rows, g.y + (row + t) * g.ldy);
  }
}

template <class Arch, class Panel>
void multiply(const Int8PanelArgs& g) {
  std::int64_t t = 0;
  for (; t + 4 <= g.n_tokens; t += 4) multiply_tokens<Arch, Panel, 4>(g, t);
  for (; t + 2 <= g.n_tokens; t += 2) multiply_tokens<Arch, Panel, 2>(g, t);
  if (t < g.n_tokens) multiply_tokens<Arch, Panel, 1>(g, t);
}

}  // namespace qwen::cpu
