// Products of many rows of 8-bit integers with panels, in which a lane is a row of the weight.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "backends/cpu/kernels/int8.h"
#include "backends/cpu/kernels/int8_dot_avx2.h"
#include "backends/cpu/kernels/int8_panels.h"
#include "backends/cpu/kernels/levels_avx2.h"
#include "core/int8.h"

namespace qwen::cpu {

// 8 rows of 8 dwords become 8 columns of them.
template <class Arch>
inline void transpose_8x8(__m256i (&v)[8]) {
  __m256i a[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
    a[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    v[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
    v[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
    v[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
    v[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
  // v[4 q + c] holds column c of each 128-bit lane, of rows 4 q to 4 q + 3.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    a[c] = _mm256_permute2x128_si256(v[c], v[4 + c], 0x20);
    a[4 + c] = _mm256_permute2x128_si256(v[c], v[4 + c], 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) v[i] = a[i];
}

template <class Arch, class Block>
void pack(const std::byte* rows, std::size_t row_bytes, std::int64_t n_rows, std::int64_t n_cols,
          std::byte* panel) {
  using L = Levels32<Arch, Block>;
  using Part = PanelPart<L::kSub, L::kHasMin>;
  constexpr std::int64_t kRows = Int8Format::kPanelRows;
  constexpr int kScales = Block::kElements / L::kSub;
  auto* const parts = reinterpret_cast<Part*>(panel);
  for (std::int64_t b = 0; b < n_cols / Block::kElements; ++b) {
    Part* const of_block = parts + b * kScales;
    const auto block = [&](std::int64_t r) -> const Block& {
      return reinterpret_cast<const Block*>(rows + static_cast<std::size_t>(r) * row_bytes)[b];
    };
    for (std::int64_t r = 0; r < kRows; ++r) {
      float scales[kScales] = {};
      float mins[kScales] = {};
      if (r < n_rows) {
        L::scales(block(r), scales);
        if constexpr (L::kHasMin) L::mins(block(r), mins);
      }
      for (int s = 0; s < kScales; ++s) {
        of_block[s].scale[r] = scales[s];
        if constexpr (L::kHasMin) of_block[s].min[r] = mins[s];
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < Block::kElements / 32; ++i) {
      for (std::int64_t first = 0; first < kRows; first += 8) {
        __m256i levels[8];
#pragma GCC unroll 8
        for (std::int64_t r = 0; r < 8; ++r) {
          levels[r] = L::levels(block(std::min(first + r, n_rows - 1)), i);
        }
        transpose_8x8<Arch>(levels);
#pragma GCC unroll 8
        for (int c = 0; c < 8; ++c) {
          Part& part = of_block[(32 * i + 4 * c) / L::kSub];
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(part.levels[c % (L::kSub / 4)][first]),
                              levels[c]);
        }
      }
    }
  }
  // x is 0 there.
  for (std::int64_t c = n_cols; c % Int8Rows::kUnit != 0; c += L::kSub) parts[c / L::kSub] = {};
}

// What formats with panels of one kind have in common.
template <int sub, bool has_min, bool is_signed, int chain>
struct PanelOf {
  static constexpr int kSub = sub;
  static constexpr bool kHasMin = has_min;
  static constexpr bool kSigned = is_signed;
  static constexpr int kChain = chain;
  using Part = PanelPart<sub, has_min>;
};

// GCC 12 would add up in another order, for which the registers do not suffice.
template <class Arch>
inline void keep_order(__m256i& sum) {
  asm("" : "+x"(sum));
}

// dots + the products of a part of a panel with the integers of some rows of x, kSub bytes apart:
// one register for each half of the panel's rows.
template <class Arch, class P, int kTokens>
inline void add_products(const typename P::Part& part, const std::int8_t* x,
                         __m256i (&dots)[kTokens][2]) {
  using LevelsFactor = Factor<Arch, P>;
#pragma GCC unroll 8
  for (int from = 0; from < P::kSub / 4; from += LevelsFactor::kChain) {
    __m256i chains[kTokens][2];
#pragma GCC unroll 8
    for (int k = from; k < from + LevelsFactor::kChain; ++k) {
      const LevelsFactor low(Bytes32<Arch>::load(part.levels[k][0]));
      const LevelsFactor high(Bytes32<Arch>::load(part.levels[k][8]));
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        std::int32_t four;
        std::memcpy(&four, x + t * P::kSub + 4 * k, 4);
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
template <class Arch, class P>
inline void add_scaled(const typename P::Part& part, const __m256i (&dots)[2], float step,
                       __m256 (&total)[2]) {
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const __m256 stepped = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[h]), _mm256_set1_ps(step));
    total[h] = _mm256_fmadd_ps(stepped, _mm256_loadu_ps(part.scale + 8 * h), total[h]);
  }
}

// What sums of products begin with.
template <class Arch, class P>
inline __m256i first_sum(const std::int32_t* sums) {
  return P::kHasMin || P::kSigned ? _mm256_setzero_si256() : _mm256_set1_epi32(*sums);
}

// total + the products of a panel with one plane of rows of x, the first of which is `row`.
template <class Arch, class P, int kTokens, bool kFine>
inline void add_plane(const Int8PanelArgs& g, std::int64_t row, __m256 (&total)[kTokens][2]) {
  const std::int64_t begin = g.x.at(row, 0);
  const std::byte* const all_sums = kFine ? g.x.fine_sums : g.x.sums;
  const std::int8_t* x = (kFine ? g.x.fine : g.x.coarse) + begin * P::kSub;
  const float* steps = g.x.steps + begin;
  const auto* sums = reinterpret_cast<const std::int32_t*>(all_sums) + begin;
  const auto* values = reinterpret_cast<const float*>(g.x.sums) + begin;
  const auto* part = reinterpret_cast<const typename P::Part*>(g.panel);
  for (std::int64_t p = 0; p < g.x.n_cols / P::kSub; ++p, ++part) {
    __m256i dots[kTokens][2];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) dots[t][0] = dots[t][1] = first_sum<Arch, P>(sums + t);
    add_products<Arch, P>(*part, x, dots);
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      add_scaled<Arch, P>(*part, dots[t], kFine ? steps[t] / kInt8Fine : steps[t], total[t]);
      if constexpr (P::kHasMin && !kFine) {
        const __m256 value = _mm256_set1_ps(values[t]);
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          total[t][h] = _mm256_fnmadd_ps(_mm256_loadu_ps(part->min + 8 * h), value, total[t][h]);
        }
      }
    }
    x += Int8Format::kPanelTokens * P::kSub;
    steps += Int8Format::kPanelTokens;
    sums += Int8Format::kPanelTokens;
    values += Int8Format::kPanelTokens;
  }
}

// total + the products with the listed blocks of the fine plane.
template <class Arch, class P>
inline void add_listed(const Int8PanelArgs& g, std::int64_t row, __m256 (&total)[2]) {
  constexpr int kParts = kInt8Block / P::kSub;  // of a block
  const auto* const parts = reinterpret_cast<const typename P::Part*>(g.panel);
  const auto* const sums = reinterpret_cast<const std::int32_t*>(g.x.fine_sums);
  const std::int32_t* const listed = g.x.listed + row * (g.x.n_cols / kInt8Block);
  for (std::int32_t i = 0; i < g.x.n_listed[row]; ++i) {
    for (std::int64_t p = listed[i] * kParts; p < (listed[i] + 1) * kParts; ++p) {
      const std::int64_t at = g.x.at(row, p);
      __m256i dots[1][2];
      dots[0][0] = dots[0][1] = first_sum<Arch, P>(sums + at);
      add_products<Arch, P>(parts[p], g.x.fine + at * P::kSub, dots);
      add_scaled<Arch, P>(parts[p], dots[0], g.x.steps[at] / kInt8Fine, total);
    }
  }
}

template <class Arch, class P, int kTokens>
void multiply_tile(const Int8PanelArgs& g, std::int64_t first) {
  const std::int64_t row = g.tile * Int8Format::kPanelTokens + first;
  __m256 total[kTokens][2];
#pragma GCC unroll 4
  for (auto& t : total) t[0] = t[1] = _mm256_setzero_ps();
  add_plane<Arch, P, kTokens, false>(g, row, total);
  if (g.x.mostly_fine) add_plane<Arch, P, kTokens, true>(g, row, total);
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    if (!g.x.mostly_fine) add_listed<Arch, P>(g, row + t, total[t]);
    float results[Int8Format::kPanelRows];
    _mm256_storeu_ps(results, total[t][0]);
    _mm256_storeu_ps(results + 8, total[t][1]);
    std::copy_n(results, g.n_rows, g.y + (row + t) * g.ldy);
  }
}

template <class Arch, class P>
void multiply(const Int8PanelArgs& g) {
  std::int64_t t = 0;
  for (; t + 4 <= g.n_tokens; t += 4) multiply_tile<Arch, P, 4>(g, t);
  for (; t + 2 <= g.n_tokens; t += 2) multiply_tile<Arch, P, 2>(g, t);
  if (t < g.n_tokens) multiply_tile<Arch, P, 1>(g, t);
}

}  // namespace qwen::cpu
