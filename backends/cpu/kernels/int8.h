// Products of quantised weights and activations in 8-bit integers (core/int8.h), as a table of
// functions like kernels.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "backends/cpu/kernels/kernels.h"

namespace qwen::cpu {

inline constexpr std::int64_t kPanelRows = 16;

// The fine plane of one block of a row, all that a product needs of it in one cache line.
struct alignas(64) FineBlock {
  std::int32_t block;
  float step;            // of its block / kInt8Fine
  std::int32_t sums[2];  // of each part, as Int8Rows::sums, for levels with an offset
  std::int8_t values[32];
};

// Rows of activations as integers, in two planes: a block that is rounded finely is step * (coarse
// + fine / 128), any other step * coarse. Both have the sign of the value, so that the planes'
// products add up like those of the value itself.
//
// The columns of a row are cut into parts, which share a scale of the weight, and `tile` rows lie
// part by part beside each other: (n_rows / tile, n_parts, tile, sub).
struct Int8Rows {
  double fine_from;     // core/int8.h
  bool all_fine;        // the fine plane has all blocks; else those that have one are listed
  std::int64_t n_cols;  // a multiple of kInt8Block
  std::int64_t sub;     // columns of a part: 16 or 32
  std::int64_t tile;
  std::int8_t* coarse;
  // One per part: the step of its block. fine / 128 is not in it.
  float* steps;
  // One per part. For levels with an offset, int32: - offset * sum of the part's integers, where a
  // sum of products begins. For formats with a minimum, F32: the sum of the part's values, of both
  // planes.
  std::byte* sums;
  // If all_fine: the fine plane, as `coarse`, and its sums for levels with an offset.
  std::int8_t* fine;
  std::byte* fine_sums;
  // Else: (n_rows, n_cols / kInt8Block), of which the first n_listed (n_rows) of each row are set.
  FineBlock* listed;
  std::int32_t* n_listed;

  // Where part p of a row lies in arrays with an entry per part.
  std::int64_t at(std::int64_t row, std::int64_t p) const {
    return (row / tile * (n_cols / sub) + p) * tile + row % tile;
  }
};

// y[t * ldy + i] = row i of a panel times row t of a tile of x.
struct Int8PanelArgs {
  const std::byte* panel;
  Int8Rows x;
  std::int64_t tile;      // of x
  std::int64_t n_tokens;  // of the tile, <= kTileTokens
  std::int64_t n_rows;    // of the panel, <= kPanelRows
  float* y;
  std::int64_t ldy;

  static constexpr std::int64_t kTileTokens = 12;
};

// How a weight format is multiplied: its rows become panels (panels.h), once or for each product.
// Levels become bytes: level + offset, which are unsigned wherever a table has no products of
// signed ones.
struct Int8Format {
  std::int64_t sub;     // columns that share a scale: 16 or 32; 0: the format is not supported
  std::int32_t offset;  // 0 for formats with a minimum, and for signed bytes
  bool has_min;
  void (*to_panel)(const std::byte* rows, std::size_t row_bytes, std::int64_t n_rows,
                   std::byte* panel);
  void (*from_panel)(const std::byte* panel, std::int64_t row, std::size_t row_bytes,
                     std::byte* to);
  void (*multiply)(const Int8PanelArgs&);
  // For many tiles of x: a panel whose scales are floats and whose levels are bytes, for
  // multiply_expanded().
  void (*expand)(const std::byte* panel, std::int64_t n_cols, std::byte* to);
  void (*multiply_expanded)(const Int8PanelArgs&);

  std::size_t expanded_bytes(std::int64_t n_cols) const {
    const std::int64_t per_part = kPanelRows * (sub + (has_min ? 8 : 4));
    return static_cast<std::size_t>(n_cols / sub * per_part);
  }
};

struct Int8Kernels {
  std::array<Int8Format, Kernels::kDTypes> formats;  // by DType
  // Rounds a row to row `to` of `rows`.
  void (*quantise)(const float* row, const Int8Format& format, const Int8Rows& rows,
                   std::int64_t to);
};

}  // namespace qwen::cpu
