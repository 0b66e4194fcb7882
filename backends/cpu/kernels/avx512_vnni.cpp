// Compiled for AVX-512 F, CD, DQ, BW, VL and VNNI.
#include <immintrin.h>

#include <algorithm>
#include <cmath>

#include "backends/cpu/kernels/formats.h"
#include "backends/cpu/kernels/int8.h"
#include "backends/cpu/kernels/levels_avx512.h"
#include "backends/cpu/kernels/simd_avx512.h"
#include "backends/cpu/kernels/transpose_avx512.h"
#include "core/int8.h"

namespace qwen::cpu {
namespace {

struct Vnni;  // names this file's copies of templates (simd.h says why)

constexpr int kPanelRows = Int8Format::kPanelRows;

// Of the 32 values at `p`; infinite or not-a-number if one is (core/int8.h).
float largest_magnitude(const float* p) {
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

void store_bytes(__m512i integers, std::int8_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(integers));
}

// Toward zero.
__m512i divided_by_fine(__m512i v) {
  static_assert(kInt8Fine == 128);
  const __m512i up = _mm512_and_si512(_mm512_srai_epi32(v, 31), _mm512_set1_epi32(127));
  return _mm512_srai_epi32(_mm512_add_epi32(v, up), 7);
}

// The sums of a block's groups, in order.
inline void sums_of_groups(const Integers& values, std::int64_t group, std::int32_t (&sums)[8]) {
  if (group == 32) {
    sums[0] = _mm512_reduce_add_epi32(_mm512_add_epi32(values.low, values.high));
  } else if (group == 16) {
    sums[0] = _mm512_reduce_add_epi32(values.low);
    sums[1] = _mm512_reduce_add_epi32(values.high);
  } else {
    alignas(64) std::int32_t all[32];
    _mm512_store_si512(all, values.low);
    _mm512_store_si512(all + 16, values.high);
    for (int i = 0; i < 8; ++i) {
      const std::int32_t* const four = all + 4 * i;
      sums[i] = four[0] + four[1] + four[2] + four[3];
    }
  }
}

void quantise(const float* row, std::int64_t n, const Int8Format& format, const Int8Rows& rows,
              std::int64_t to) {
  const std::int64_t n_blocks = n / kInt8Block;
  double sum = 0;
  for (std::int64_t b = 0; b < n_blocks; ++b) sum += largest_magnitude(row + b * kInt8Block);

  const std::int64_t group = rows.group;
  const std::int64_t per_block = kInt8Block / group;
  const std::int64_t tile = rows.tile;
  const std::int64_t blocks_of_list = group == 4 ? Int8Rows::kUnit / kInt8Block : 1;
  std::int32_t* const listed = rows.listed + to * (rows.n_cols / kInt8Block);
  std::int32_t n_listed = 0;
  std::int64_t at = rows.at(to, 0);  // of the block's first group
  for (std::int64_t b = 0; b < rows.n_cols / kInt8Block; ++b, at += per_block * tile) {
    const float* const from = row + b * kInt8Block;
    const bool is_padding = b >= n_blocks;
    const float largest = is_padding ? 0 : largest_magnitude(from);
    const bool is_fine = !is_padding && int8_is_fine(largest, sum, n_blocks);
    const float step = int8_step(largest);
    const float unit = is_fine ? step / kInt8Fine : step;
    Integers values{_mm512_setzero_si512(), _mm512_setzero_si512()};
    if (unit > 0) {
      const __m512 per_value = _mm512_set1_ps(1 / unit);
      values.low = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from), per_value));
      values.high = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from + 16), per_value));
    }
    Integers upper = values;
    Integers lower{_mm512_setzero_si512(), _mm512_setzero_si512()};
    if (is_fine) {
      upper = {divided_by_fine(values.low), divided_by_fine(values.high)};
      lower = {_mm512_sub_epi32(values.low, _mm512_slli_epi32(upper.low, 7)),
               _mm512_sub_epi32(values.high, _mm512_slli_epi32(upper.high, 7))};
      const auto place = static_cast<std::int32_t>(b / blocks_of_list);
      if (n_listed == 0 || listed[n_listed - 1] != place) listed[n_listed++] = place;
    }
    // Half of a listed unit may have no fine plane: it is 0.
    const bool has_lower = is_fine || group == 4;
    const std::int64_t low = at * group;
    const std::int64_t high = group == 16 ? low + tile * group : low + 16;  // tile 1 for group 4
    store_bytes(upper.low, rows.coarse + low);
    store_bytes(upper.high, rows.coarse + high);
    if (has_lower) {
      store_bytes(lower.low, rows.fine + low);
      store_bytes(lower.high, rows.fine + high);
    }
    for (std::int64_t g = 0; g < per_block; ++g) rows.steps[at + g * tile] = step;
    std::int32_t sums[8];
    if (format.has_min) {
      sums_of_groups(values, group, sums);
      auto* const to_sums = reinterpret_cast<float*>(rows.sums) + at;
      for (std::int64_t g = 0; g < per_block; ++g) {
        to_sums[g * tile] = static_cast<float>(sums[g]) * unit;
      }
      continue;
    }
    sums_of_groups(upper, group, sums);
    auto* const begins = reinterpret_cast<std::int32_t*>(rows.sums) + at;
    for (std::int64_t g = 0; g < per_block; ++g) begins[g * tile] = -format.offset * sums[g];
    if (!has_lower) continue;
    sums_of_groups(lower, group, sums);
    auto* const fine_begins = reinterpret_cast<std::int32_t*>(rows.fine_sums) + at;
    for (std::int64_t g = 0; g < per_block; ++g) fine_begins[g * tile] = -format.offset * sums[g];
  }
  rows.n_listed[to] = n_listed;
}

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
    const Block pair[2] = {*block, {}};
    f(pair, whole * kGroups);
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
        const auto* block = reinterpret_cast<const Block*>(row) + group / kGroups * L::kBlocks;
        Block pair[2];
        if (L::kBlocks == 2 && 64 * group + 32 == g.n_cols) {  // half of a pair
          pair[0] = *block;
          pair[1] = {};
          block = pair;
        }
        const std::int64_t place = t * n_cols + 64 * group;
        const __m512i begin =
            L::kHasMin ? _mm512_setzero_si512() : _mm512_loadu_si512(fine_sums + place);
        const __m512i dot = _mm512_dpbusd_epi32(begin, L::levels(block, group % kGroups),
                                                _mm512_loadu_si512(fine + place));
        const __m512 scale = _mm512_permutexvar_ps(scale_lanes(group % kGroups), L::scales(block));
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

// What a panel holds of kSub columns.
template <int kSub, bool kHasMin>
struct PanelPart {
  float scale[kPanelRows];
  float min[kHasMin ? kPanelRows : 0];
  std::uint8_t levels[kSub / 4][kPanelRows][4];
};

template <class Block>
void pack(const std::byte* rows, std::size_t row_bytes, std::int64_t n_rows, std::int64_t n_cols,
          std::byte* panel) {
  using L = Levels<Block>;
  using Part = PanelPart<L::kSub, L::kHasMin>;
  constexpr int kGroups = L::kElements / 64;
  constexpr int kParts = L::kElements / L::kSub;  // of a unit
  for (std::int64_t first = 0; first < n_cols; first += L::kElements) {
    Part* const parts = reinterpret_cast<Part*>(panel) + first / L::kSub;
    const bool is_half = first + L::kElements > n_cols;
    const auto padded = [&](const Block* b, Block(&pair)[2]) {
      if (!is_half) return b;
      pair[0] = *b;
      pair[1] = {};
      return static_cast<const Block*>(pair);
    };
    const auto block_of = [&](std::int64_t r) {
      const std::byte* const row = rows + static_cast<std::size_t>(r) * row_bytes;
      return reinterpret_cast<const Block*>(row) + first / L::kElements * L::kBlocks;
    };
    for (std::int64_t r = 0; r < kPanelRows; ++r) {
      alignas(64) float scales[16] = {};
      alignas(64) float mins[16] = {};
      if (r < n_rows) {
        Block pair[2];
        const Block* const unit = padded(block_of(r), pair);
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
      for (std::int64_t r = 0; r < kPanelRows; ++r) {
        Block pair[2];
        const Block* const unit = padded(block_of(std::min(r, n_rows - 1)), pair);
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
__m512i add_products(__m512i total, __m512i levels, const std::int8_t* integers) {
  using Four = std::int32_t __attribute__((may_alias));
  asm("vpdpbusd %2%{1to16%}, %1, %0"
      : "+v"(total)
      : "v"(levels), "m"(*reinterpret_cast<const Four*>(integers)));
  return total;
}

template <int kSub, bool kHasMin, int kTokens>
void multiply_tile(const Int8PanelArgs& g, std::int64_t first) {
  constexpr int kFours = kSub / 4;
  constexpr std::int64_t kTile = Int8Format::kPanelTokens;
  const std::int64_t n_parts = g.x.n_cols / kSub;
  const auto* const parts = reinterpret_cast<const PanelPart<kSub, kHasMin>*>(g.panel);
  const std::int64_t begin = g.x.at(g.tile * kTile + first, 0);
  const std::int8_t* x = g.x.coarse + begin * kSub;
  const float* steps = g.x.steps + begin;
  const auto* sums = reinterpret_cast<const std::int32_t*>(g.x.sums) + begin;
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
      const __m512 stepped = _mm512_mul_ps(_mm512_cvtepi32_ps(dot), _mm512_set1_ps(steps[t]));
      total[t] = _mm512_fmadd_ps(stepped, scale, total[t]);
      if constexpr (kHasMin) {
        total[t] =
            _mm512_fnmadd_ps(_mm512_loadu_ps(parts[p].min), _mm512_set1_ps(values[t]), total[t]);
      }
    }
    x += kTile * kSub;
    steps += kTile;
    sums += kTile;
    values += kTile;
  }
  const auto mask = static_cast<__mmask16>((1u << g.n_rows) - 1);
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
    const std::int64_t token = g.tile * kTile + first + t;
    const std::int32_t* const listed = g.x.listed + token * (g.x.n_cols / kInt8Block);
    for (std::int32_t i = 0; i < g.x.n_listed[token]; ++i) {
      constexpr int kPartsOfBlock = kInt8Block / kSub;
      for (std::int64_t p = listed[i] * kPartsOfBlock; p < (listed[i] + 1) * kPartsOfBlock; ++p) {
        const std::int64_t at = g.x.at(token, p);
        const auto* const fine_sums = reinterpret_cast<const std::int32_t*>(g.x.fine_sums);
        __m512i dot = kHasMin ? _mm512_setzero_si512() : _mm512_set1_epi32(fine_sums[at]);
#pragma GCC unroll 8
        for (int k = 0; k < kFours; ++k) {
          dot = add_products(dot, _mm512_loadu_si512(parts[p].levels[k]),
                             g.x.fine + at * kSub + 4 * k);
        }
        const __m512 step = _mm512_set1_ps(g.x.steps[at] / kInt8Fine);
        total[t] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot), step),
                                   _mm512_loadu_ps(parts[p].scale), total[t]);
      }
    }
    _mm512_mask_storeu_ps(g.y + token * g.ldy, mask, total[t]);
  }
}

template <int kSub, bool kHasMin>
void multiply(const Int8PanelArgs& g) {
  std::int64_t t = 0;
  for (; t + 12 <= g.n_tokens; t += 12) multiply_tile<kSub, kHasMin, 12>(g, t);
  for (; t + 8 <= g.n_tokens; t += 8) multiply_tile<kSub, kHasMin, 8>(g, t);
  for (; t + 4 <= g.n_tokens; t += 4) multiply_tile<kSub, kHasMin, 4>(g, t);
  for (; t + 2 <= g.n_tokens; t += 2) multiply_tile<kSub, kHasMin, 2>(g, t);
  if (t < g.n_tokens) multiply_tile<kSub, kHasMin, 1>(g, t);
}

template <class... Blocks>
Int8Kernels make() {
  Int8Kernels k{};
  ((k.formats[static_cast<std::size_t>(Blocks::kDType)] =
        {.sub = Levels<Blocks>::kSub,
         .offset = Levels<Blocks>::kOffset,
         .has_min = Levels<Blocks>::kHasMin,
         .gemv = gemv<Blocks>,
         .pack = pack<Blocks>,
         .multiply = multiply<Levels<Blocks>::kSub, Levels<Blocks>::kHasMin>}),
   ...);
  k.quantise = quantise;
  return k;
}

}  // namespace

const Kernels& avx512_vnni_kernels() {
  static const Int8Kernels kInt8 = make<BlockQ8_0, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1,
                                        BlockQ4_K, BlockQ5_K, BlockQ6_K, BlockIQ4_NL>();
  static const Kernels kTable = [] {
    Kernels k = avx512_kernels();
    k.int8 = &kInt8;
    return k;
  }();
  return kTable;
}

}  // namespace qwen::cpu
