// Products of quantised weights and activations in 8-bit integers (core/int8.h), as a table of
// functions like kernels.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "backends/cpu/kernels/kernels.h"

namespace qwen::cpu {

// Rows of activations as integers, in two planes: a block that is rounded finely is step * (coarse
// + fine / 128), any other step * coarse. Both have the sign of the value, so that the planes'
// products add up like those of the value itself.
//
// The columns of a row are cut into groups, and `tile` rows lie group by group beside each other:
// (n_rows / tile, n_groups, tile, group).
struct Int8Rows {
  double fine_from;     // core/int8.h
  bool mostly_fine;     // products had better not look for the fine blocks
  std::int64_t n_cols;  // a multiple of kUnit; columns past the row's own are 0
  std::int64_t group;   // 4, 16 or 32 columns
  std::int64_t tile;    // 1 for group 4, else Int8Format::kPanelTokens
  std::int8_t* coarse;
  std::int8_t* fine;  // of blocks that are not listed 0 or, unless group is 4 or mostly_fine, unset
  // One per group: the step of its block. fine / 128 is not in it.
  float* steps;
  // For levels with an offset, one per group, int32: - offset * sum of the group's integers, where
  // a sum of products begins. For formats with a minimum, F32: the sum of the values of each group,
  // in groups of 4 (n_rows, n_cols / kInt8Block): of each block.
  std::byte* sums;
  std::byte* fine_sums;  // as `sums`, of plane `fine`; formats with a minimum have all in `sums`
  // (n_rows, n_cols / kInt8Block): the blocks (group 4: what a register holds of blocks) with a
  // fine plane, and how many.
  std::int32_t* listed;
  std::int32_t* n_listed;  // (n_rows)

  static constexpr std::int64_t kUnit = 64;

  // Where group g of a row lies in arrays with an entry per group.
  std::int64_t at(std::int64_t row, std::int64_t g) const {
    return (row / tile * (n_cols / group) + g) * tile + row % tile;
  }
};

struct Int8GemvArgs {
  const std::byte* weight;
  std::size_t row_bytes;
  std::int64_t row_begin, row_end;
  std::int64_t n_cols;  // of the weight
  Int8Rows x;           // group 4, tile 1
  std::int64_t n_tokens;
  float* y;  // y[t * ldy + r]
  std::int64_t ldy;
};

// y[t * ldy + i] = row i of a panel times row t of a tile of x.
struct Int8PanelArgs {
  const std::byte* panel;
  Int8Rows x;             // group Int8Format::sub, tile kPanelTokens
  std::int64_t tile;      // of x
  std::int64_t n_tokens;  // of the tile
  std::int64_t n_rows;    // of the panel, <= kPanelRows
  float* y;
  std::int64_t ldy;
};

// How a weight format is multiplied. Its levels become bytes: level + offset, which are unsigned
// wherever a table has no products of signed ones.
struct Int8Format {
  std::int64_t sub;     // columns that share a scale: 16 or 32; 0: the format is not supported
  std::int32_t offset;  // 0 for formats with a minimum, and for signed bytes
  bool has_min;
  void (*gemv)(const Int8GemvArgs&);
  // Lays `n_rows` rows of `n_cols` columns out as a panel: for each `sub` columns the scales (and
  // minima) of its rows, then sub / 4 times four levels of each row. Missing rows have a scale of
  // 0.
  void (*pack)(const std::byte* rows, std::size_t row_bytes, std::int64_t n_rows,
               std::int64_t n_cols, std::byte* panel);
  void (*multiply)(const Int8PanelArgs&);

  static constexpr std::int64_t kPanelRows = 16;
  static constexpr std::int64_t kPanelTokens = 12;
  std::size_t panel_bytes(std::int64_t padded_cols) const {
    const std::int64_t per_sub = kPanelRows * (sub + (has_min ? 8 : 4));
    return static_cast<std::size_t>(padded_cols / sub * per_sub);
  }
};

struct Int8Kernels {
  std::array<Int8Format, Kernels::kDTypes> formats;  // by DType
  // Rounds one row of `n` values, a multiple of kInt8Block, to row `to` of `rows`.
  void (*quantise)(const float* row, std::int64_t n, const Int8Format& format, const Int8Rows& rows,
                   std::int64_t to);
};

}  // namespace qwen::cpu
