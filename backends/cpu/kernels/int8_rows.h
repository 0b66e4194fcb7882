// Rounding rows of activations to 8-bit integers (core/int8.h).
#pragma once

#include <algorithm>

#include "backends/cpu/kernels/int8.h"
#include "core/int8.h"

namespace qwen::cpu {

// The values of a block as 32-bit integers; one specialisation per instruction set:
//
//   static constexpr int kListedBlocks              of a unit that products of single rows take
//   static float largest_magnitude(const float* p)  of the 32 values at p; infinite or not-a-number
//                                                   if one is (core/int8.h)
//   Integers()                                      zeros
//   Integers(const float* p, float factor)          the values at p times factor, ties to even
//   Integers whole() const                          divided by kInt8Fine, toward zero
//   Integers rest(const Integers& whole) const      what is left of it
//   void store(std::int8_t* low, std::int8_t* high) const   16 bytes to each
//   void sums<kGroup>(std::int32_t (&)[kInt8Block / kGroup]) const   of groups, in order
template <class Arch>
class Integers;

// How a block is rounded.
struct BlockRounding {
  float step, unit, per_value;  // per_value 0: to 0
  bool is_fine;
};

// Of blocks [first, past) of a row of n_blocks, whose largest magnitudes' sum is `sum`. Blocks past
// the row's end are 0.
template <class Arch>
void block_roundings(const float* row, std::int64_t first, std::int64_t past, std::int64_t n_blocks,
                     double sum, double fine_from, BlockRounding* roundings) {
  for (std::int64_t b = first; b < past; ++b) {
    const float largest =
        b < n_blocks ? Integers<Arch>::largest_magnitude(row + b * kInt8Block) : 0;
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
template <int kGroup, class Arch, class T>
void store_sums(const Integers<Arch>& values, T factor, std::byte* to, std::int64_t at) {
  std::int32_t sums[kInt8Block / kGroup];
  values.template sums<kGroup>(sums);
  for (std::int64_t g = 0; g < kInt8Block / kGroup; ++g) {
    reinterpret_cast<T*>(to)[at + g * kTileOf<kGroup>] = static_cast<T>(sums[g]) * factor;
  }
}

template <class Arch, int kGroup>
void quantise_in_groups(const float* row, std::int64_t n, const Int8Format& format,
                        const Int8Rows& rows, std::int64_t to) {
  const std::int64_t n_blocks = n / kInt8Block;
  double sum = 0;
  for (std::int64_t b = 0; b < n_blocks; ++b)
    sum += Integers<Arch>::largest_magnitude(row + b * kInt8Block);

  constexpr std::int64_t kTile = kTileOf<kGroup>;
  constexpr std::int64_t kPerBlock = kInt8Block / kGroup;
  constexpr std::int64_t kBlocksOfList = kGroup == 4 ? Integers<Arch>::kListedBlocks : 1;
  const std::int64_t padded_blocks = rows.n_cols / kInt8Block;
  std::int32_t* const listed = rows.listed + to * padded_blocks;
  std::int32_t n_listed = 0;
  // In a loop of its own, so that its divisions overlap.
  constexpr std::int64_t kBlocks = 32;
  BlockRounding roundings[kBlocks];
  std::int64_t at = rows.at(to, 0);  // of the block's first group
  for (std::int64_t b = 0; b < padded_blocks; ++b, at += kPerBlock * kTile) {
    if (b % kBlocks == 0) {
      block_roundings<Arch>(row, b, std::min(b + kBlocks, padded_blocks), n_blocks, sum,
                            rows.fine_from, roundings);
    }
    const BlockRounding& rounding = roundings[b % kBlocks];
    Integers<Arch> values;
    if (rounding.per_value > 0) values = {row + b * kInt8Block, rounding.per_value};
    Integers<Arch> upper = values;
    Integers<Arch> lower;
    if (rounding.is_fine) {
      upper = values.whole();
      lower = values.rest(upper);
      const auto place = static_cast<std::int32_t>(b / kBlocksOfList);
      if (n_listed == 0 || listed[n_listed - 1] != place) listed[n_listed++] = place;
    }
    for (std::int64_t g = 0; g < kPerBlock; ++g) rows.steps[at + g * kTile] = rounding.step;
    const std::int64_t low = at * kGroup;
    const std::int64_t high = kGroup == 16 ? low + kTile * kGroup : low + 16;  // tile 1 for group 4
    upper.store(rows.coarse + low, rows.coarse + high);
    // Half of a listed unit may have no fine plane: it is 0.
    const bool has_lower = rounding.is_fine || kGroup == 4 || rows.mostly_fine;
    if (has_lower) lower.store(rows.fine + low, rows.fine + high);
    if (format.has_min) {
      constexpr int kOf = kGroup == 4 ? kInt8Block : kGroup;
      store_sums<kOf>(values, rounding.unit, rows.sums, kGroup == 4 ? to * padded_blocks + b : at);
      continue;
    }
    if (format.offset == 0) continue;
    store_sums<kGroup>(upper, -format.offset, rows.sums, at);
    if (has_lower) store_sums<kGroup>(lower, -format.offset, rows.fine_sums, at);
  }
  rows.n_listed[to] = n_listed;
}

template <class Arch>
void quantise(const float* row, std::int64_t n, const Int8Format& format, const Int8Rows& rows,
              std::int64_t to) {
  if (rows.group == 4) return quantise_in_groups<Arch, 4>(row, n, format, rows, to);
  if (rows.group == 16) return quantise_in_groups<Arch, 16>(row, n, format, rows, to);
  quantise_in_groups<Arch, 32>(row, n, format, rows, to);
}

}  // namespace qwen::cpu
