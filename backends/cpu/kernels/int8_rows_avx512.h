// Rounding rows of activations to 8-bit integers (core/int8.h).
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "backends/cpu/kernels/int8.h"
#include "core/int8.h"

namespace qwen::cpu {

// Of the 32 values at `p`; infinite or not-a-number if one is (core/int8.h).
inline float largest_magnitude(const float* p) {
  const __m512i no_sign = _mm512_set1_epi32(0x7fffffff);
  const __m512i largest = _mm512_max_epu32(_mm512_and_si512(_mm512_loadu_si512(p), no_sign),
                                           _mm512_and_si512(_mm512_loadu_si512(p + 16), no_sign));
  return _mm_cvtss_f32(
      _mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(_mm512_reduce_max_epu32(largest)))));
}

// A block of 32.
struct Integers {
  __m512i low, high;
};

inline void store_bytes(__m512i integers, std::int8_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(integers));
}

// Toward zero.
inline __m512i divided_by_fine(__m512i v) {
  static_assert(kInt8Fine == 128);
  const __m512i up = _mm512_and_si512(_mm512_srai_epi32(v, 31), _mm512_set1_epi32(127));
  return _mm512_srai_epi32(_mm512_add_epi32(v, up), 7);
}

// The sums of a block's groups, in order.
template <int kGroup>
void sums_of_groups(const Integers& values, std::int32_t (&sums)[kInt8Block / kGroup]) {
  if constexpr (kGroup == 32) {
    sums[0] = _mm512_reduce_add_epi32(_mm512_add_epi32(values.low, values.high));
  } else if constexpr (kGroup == 16) {
    sums[0] = _mm512_reduce_add_epi32(values.low);
    sums[1] = _mm512_reduce_add_epi32(values.high);
  } else {
    static_assert(kGroup == 4);
    alignas(64) std::int32_t all[32];
    _mm512_store_si512(all, values.low);
    _mm512_store_si512(all + 16, values.high);
    for (int i = 0; i < 8; ++i) {
      const std::int32_t* const four = all + 4 * i;
      sums[i] = four[0] + four[1] + four[2] + four[3];
    }
  }
}

// How a block is rounded.
struct BlockRounding {
  float step, unit, per_value;  // per_value 0: to 0
  bool is_fine;
};

// Of blocks [first, past) of a row of n_blocks, whose largest magnitudes' sum is `sum`. Blocks past
// the row's end are 0.
inline void block_roundings(const float* row, std::int64_t first, std::int64_t past,
                            std::int64_t n_blocks, double sum, double fine_from,
                            BlockRounding* roundings) {
  for (std::int64_t b = first; b < past; ++b) {
    const float largest = b < n_blocks ? largest_magnitude(row + b * kInt8Block) : 0;
    const bool is_fine = b < n_blocks && int8_is_fine(largest, sum, n_blocks, fine_from);
    const float step = int8_step(largest);
    const float unit = is_fine ? step / kInt8Fine : step;
    roundings[b - first] = {step, unit, unit > 0 ? 1 / unit : 0, is_fine};
  }
}

// Rows of single tokens lie alone, those of panels in tiles.
template <int kGroup>
constexpr std::int64_t kTileOf = kGroup == 4 ? 1 : Int8Format::kPanelTokens;

// The sums of a block's groups to one entry per group, each times `factor`.
template <int kGroup, class T>
void store_sums(const Integers& values, T factor, std::byte* to, std::int64_t at) {
  std::int32_t sums[kInt8Block / kGroup];
  sums_of_groups<kGroup>(values, sums);
  for (std::int64_t g = 0; g < kInt8Block / kGroup; ++g) {
    reinterpret_cast<T*>(to)[at + g * kTileOf<kGroup>] = static_cast<T>(sums[g]) * factor;
  }
}

template <int kGroup>
void quantise_in_groups(const float* row, std::int64_t n, const Int8Format& format,
                        const Int8Rows& rows, std::int64_t to) {
  const std::int64_t n_blocks = n / kInt8Block;
  double sum = 0;
  for (std::int64_t b = 0; b < n_blocks; ++b) sum += largest_magnitude(row + b * kInt8Block);

  constexpr std::int64_t kTile = kTileOf<kGroup>;
  constexpr std::int64_t kPerBlock = kInt8Block / kGroup;
  constexpr std::int64_t kBlocksOfList = kGroup == 4 ? Int8Rows::kUnit / kInt8Block : 1;
  const std::int64_t padded_blocks = rows.n_cols / kInt8Block;
  std::int32_t* const listed = rows.listed + to * padded_blocks;
  std::int32_t n_listed = 0;
  // In a loop of its own, so that its divisions overlap.
  constexpr std::int64_t kBlocks = 32;
  BlockRounding roundings[kBlocks];
  std::int64_t at = rows.at(to, 0);  // of the block's first group
  for (std::int64_t b = 0; b < padded_blocks; ++b, at += kPerBlock * kTile) {
    if (b % kBlocks == 0) {
      block_roundings(row, b, std::min(b + kBlocks, padded_blocks), n_blocks, sum, rows.fine_from,
                      roundings);
    }
    const BlockRounding& rounding = roundings[b % kBlocks];
    Integers values{_mm512_setzero_si512(), _mm512_setzero_si512()};
    if (rounding.per_value > 0) {
      const float* const from = row + b * kInt8Block;
      const __m512 per_value = _mm512_set1_ps(rounding.per_value);
      values.low = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from), per_value));
      values.high = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from + 16), per_value));
    }
    Integers upper = values;
    Integers lower{_mm512_setzero_si512(), _mm512_setzero_si512()};
    if (rounding.is_fine) {
      upper = {divided_by_fine(values.low), divided_by_fine(values.high)};
      lower = {_mm512_sub_epi32(values.low, _mm512_slli_epi32(upper.low, 7)),
               _mm512_sub_epi32(values.high, _mm512_slli_epi32(upper.high, 7))};
      const auto place = static_cast<std::int32_t>(b / kBlocksOfList);
      if (n_listed == 0 || listed[n_listed - 1] != place) listed[n_listed++] = place;
    }
    for (std::int64_t g = 0; g < kPerBlock; ++g) rows.steps[at + g * kTile] = rounding.step;
    const std::int64_t low = at * kGroup;
    const std::int64_t high = kGroup == 16 ? low + kTile * kGroup : low + 16;  // tile 1 for group 4
    store_bytes(upper.low, rows.coarse + low);
    store_bytes(upper.high, rows.coarse + high);
    // Half of a listed unit may have no fine plane: it is 0.
    const bool has_lower = rounding.is_fine || kGroup == 4 || rows.mostly_fine;
    if (has_lower) {
      store_bytes(lower.low, rows.fine + low);
      store_bytes(lower.high, rows.fine + high);
    }
    if (format.has_min) {
      constexpr int kOf = kGroup == 4 ? kInt8Block : kGroup;
      store_sums<kOf>(values, rounding.unit, rows.sums, kGroup == 4 ? to * padded_blocks + b : at);
      continue;
    }
    store_sums<kGroup>(upper, -format.offset, rows.sums, at);
    if (has_lower) store_sums<kGroup>(lower, -format.offset, rows.fine_sums, at);
  }
  rows.n_listed[to] = n_listed;
}

inline void quantise(const float* row, std::int64_t n, const Int8Format& format,
                     const Int8Rows& rows, std::int64_t to) {
  if (rows.group == 4) return quantise_in_groups<4>(row, n, format, rows, to);
  if (rows.group == 16) return quantise_in_groups<16>(row, n, format, rows, to);
  quantise_in_groups<32>(row, n, format, rows, to);
}

}  // namespace qwen::cpu
