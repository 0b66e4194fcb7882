// Rounding rows of activations to 8-bit integers (core/int8.h).
#pragma once

#include <algorithm>

#include "backends/cpu/kernels/int8.h"
#include "core/int8.h"

namespace qwen::cpu {

// The values of a block as 32-bit integers; one specialisation per instruction set:
//
//   static float largest_magnitude(const float* p)  of the 32 values at p; infinite or not-a-number
//                                                   if one is (core/int8.h)
//   Integers()                                      zeros
//   Integers(const float* p, float factor)          the values at p times factor, ties to even
//   Integers whole() const                          divided by kInt8Fine, toward zero
//   Integers rest(const Integers& whole) const      what is left of it
//   void store(std::int8_t* low, std::int8_t* high) const   16 bytes to each
//   void sums<kSub>(std::int32_t (&)[kInt8Block / kSub]) const   of parts, in order
template <class Arch>
class Integers;

// How a block is rounded.
struct BlockRounding {
  float step, unit, per_value;  // per_value 0: to 0
  bool is_fine;
};

// Of blocks [first, past) of a row of n_blocks, whose largest magnitudes' sum is `sum`.
template <class Arch>
void block_roundings(const float* row, std::int64_t first, std::int64_t past, std::int64_t n_blocks,
                     double sum, double fine_from, BlockRounding* roundings) {
  for (std::int64_t b = first; b < past; ++b) {
    const float largest = Integers<Arch>::largest_magnitude(row + b * kInt8Block);
    const bool is_fine = int8_is_fine(largest, sum, n_blocks, fine_from);
    const float step = int8_step(largest);
    const float unit = is_fine ? step / kInt8Fine : step;
    roundings[b - first] = {step, unit, unit > 0 ? 1 / unit : 0, is_fine};
  }
}

// The sums of a block's parts to one entry per part, each times `factor`.
template <int kSub, class Arch, class T>
void store_sums(const Integers<Arch>& values, T factor, std::byte* to, std::int64_t at,
                std::int64_t tile) {
  std::int32_t sums[kInt8Block / kSub];
  values.template sums<kSub>(sums);
  for (std::int64_t p = 0; p < kInt8Block / kSub; ++p) {
    reinterpret_cast<T*>(to)[at + p * tile] = static_cast<T>(sums[p]) * factor;
  }
}

template <class Arch, int kSub>
void quantise_in_parts(const float* row, const Int8Format& format, const Int8Rows& rows,
                       std::int64_t to) {
  const std::int64_t n_blocks = rows.n_cols / kInt8Block;
  double sum = 0;
  for (std::int64_t b = 0; b < n_blocks; ++b)
    sum += Integers<Arch>::largest_magnitude(row + b * kInt8Block);

  const std::int64_t tile = rows.tile;
  constexpr std::int64_t kParts = kInt8Block / kSub;  // of a block
  FineBlock* const listed = rows.all_fine ? nullptr : rows.listed + to * n_blocks;
  std::int32_t n_listed = 0;
  // In a loop of its own, so that its divisions overlap.
  constexpr std::int64_t kBlocks = 32;
  BlockRounding roundings[kBlocks];
  std::int64_t at = rows.at(to, 0);  // of the block's first part
  for (std::int64_t b = 0; b < n_blocks; ++b, at += kParts * tile) {
    if (b % kBlocks == 0) {
      block_roundings<Arch>(row, b, std::min(b + kBlocks, n_blocks), n_blocks, sum, rows.fine_from,
                            roundings);
    }
    const BlockRounding& rounding = roundings[b % kBlocks];
    Integers<Arch> values;
    if (rounding.per_value > 0) values = {row + b * kInt8Block, rounding.per_value};
    Integers<Arch> upper = values;
    Integers<Arch> lower;
    if (rounding.is_fine) {
      upper = values.whole();
      lower = values.rest(upper);
    }
    for (std::int64_t p = 0; p < kParts; ++p) rows.steps[at + p * tile] = rounding.step;
    const std::int64_t low = at * kSub;
    const std::int64_t high = kSub == 16 ? low + tile * kSub : low + 16;
    upper.store(rows.coarse + low, rows.coarse + high);
    if (format.has_min) {
      store_sums<kSub>(values, rounding.unit, rows.sums, at, tile);
    } else {
      store_sums<kSub>(upper, -format.offset, rows.sums, at, tile);
    }
    if (rows.all_fine) {
      lower.store(rows.fine + low, rows.fine + high);
      store_sums<kSub>(lower, -format.offset, rows.fine_sums, at, tile);
    } else if (rounding.is_fine) {
      FineBlock& fine = listed[n_listed++];
      fine.block = static_cast<std::int32_t>(b);
      fine.step = rounding.unit;
      lower.store(fine.values, fine.values + 16);
      store_sums<kSub>(lower, -format.offset, reinterpret_cast<std::byte*>(fine.sums), 0, 1);
    }
  }
  if (!rows.all_fine) rows.n_listed[to] = n_listed;
}

template <class Arch>
void quantise(const float* row, const Int8Format& format, const Int8Rows& rows, std::int64_t to) {
  if (rows.sub == 16) return quantise_in_parts<Arch, 16>(row, format, rows, to);
  quantise_in_parts<Arch, 32>(row, format, rows, to);
}

}  // namespace qwen::cpu
