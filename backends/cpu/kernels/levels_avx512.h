// Quantised blocks as unsigned bytes and their scales, in units that fill 512-bit registers.
//
// A unit is what one set of scales is read for: two blocks of 32, or one of 256. Group g of a unit
// is its elements [64 g, 64 g + 64). levels() adds kOffset to the levels of core/blocks.h; lanes of
// mins() that the unit has none for are finite if those that it has are.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstring>

#include "backends/cpu/kernels/scales_of_k.h"
#include "backends/cpu/kernels/unpack.h"

namespace qwen::cpu {

struct Vnni;  // names copies of templates that are compiled for it (simd.h says why)

template <class Block>
struct Levels;

// Unit `u` of a row. Half of a pair is completed with a block of zeros, in `copy`.
template <class Block>
inline const Block* unit_of_row(const std::byte* row, std::int64_t u, std::int64_t n_cols,
                                Block (&copy)[2]) {
  using L = Levels<Block>;
  const auto* block = reinterpret_cast<const Block*>(row) + u * L::kBlocks;
  if ((u + 1) * L::kElements <= n_cols) return block;
  copy[0] = *block;
  copy[1] = {};
  return copy;
}

// For each of 16 lanes, which hold four elements each, the index of its scale among those of the
// unit, `sub` elements per scale, from element `first` on.
inline __m512i scale_of_lane(int sub, int first) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i element = _mm512_add_epi32(_mm512_slli_epi32(lane, 2), _mm512_set1_epi32(first));
  return _mm512_srli_epi32(element, sub == 16 ? 4 : 5);
}

inline __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// Low and high nibbles of 16 bytes of each of two blocks: 64 elements in order.
inline __m512i nibbles_of_two(const void* first, const void* second) {
  const __m512i pairs =
      _mm512_mask_broadcast_i32x4(_mm512_broadcast_i32x4(load128(first)), 0xff00, load128(second));
  const __m512i shifts = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
  return _mm512_and_si512(_mm512_srlv_epi64(pairs, shifts), _mm512_set1_epi8(15));
}

// Low nibbles of 32 bytes, then the high ones.
inline __m512i nibbles_of_32_bytes(const void* bytes) {
  const __m512i twice = _mm512_broadcast_i64x4(load256(bytes));
  const __m512i shifts = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
  return _mm512_and_si512(_mm512_srlv_epi64(twice, shifts), _mm512_set1_epi8(15));
}

// `value` is added where a bit is set; bits of two blocks' masks.
inline __m512i add_where(__m512i levels, const void* first, const void* second, char value) {
  std::uint32_t low;
  std::uint32_t high;
  std::memcpy(&low, first, 4);
  std::memcpy(&high, second, 4);
  const __mmask64 mask = low | std::uint64_t{high} << 32;
  return _mm512_mask_add_epi8(levels, mask, levels, _mm512_set1_epi8(value));
}

// Two F16 numbers as the first two of a register.
inline __m512 two_halves(std::uint16_t first, std::uint16_t second) {
  const __m128i bits = _mm_cvtsi32_si128(first | second << 16);
  return _mm512_castps128_ps512(_mm_cvtph_ps(bits));
}

// Pairs of blocks of 32 elements.
template <class Block>
struct LevelsOfPair {
  static constexpr int kElements = 64;  // of a unit
  static constexpr int kSub = 32;
  static constexpr bool kHasMin = false;
  static constexpr int kBlocks = 2;
  static __m512 scales(const Block* b) { return two_halves(b[0].d, b[1].d); }
  static __m512 mins(const Block*) { return _mm512_setzero_ps(); }
};

template <>
struct Levels<BlockQ8_0> : LevelsOfPair<BlockQ8_0> {
  static constexpr int kOffset = 128;
  static __m512i levels(const BlockQ8_0* b, int) {
    const __m512i both =
        _mm512_inserti64x4(_mm512_castsi256_si512(load256(b[0].qs)), load256(b[1].qs), 1);
    return _mm512_xor_si512(both, _mm512_set1_epi8(-128));
  }
};

template <>
struct Levels<BlockQ4_0> : LevelsOfPair<BlockQ4_0> {
  static constexpr int kOffset = 8;
  static __m512i levels(const BlockQ4_0* b, int) { return nibbles_of_two(b[0].qs, b[1].qs); }
};

template <>
struct Levels<BlockQ5_0> : LevelsOfPair<BlockQ5_0> {
  static constexpr int kOffset = 16;
  static __m512i levels(const BlockQ5_0* b, int) {
    return add_where(nibbles_of_two(b[0].qs, b[1].qs), b[0].qh, b[1].qh, 16);
  }
};

template <>
struct Levels<BlockIQ4_NL> : LevelsOfPair<BlockIQ4_NL> {
  static constexpr int kOffset = 128;
  static __m512i levels(const BlockIQ4_NL* b, int) {
    const __m512i table = _mm512_broadcast_i32x4(
        _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39, -15));
    return _mm512_shuffle_epi8(table, nibbles_of_two(b[0].qs, b[1].qs));
  }
};

template <class Block>
struct LevelsWithMin : LevelsOfPair<Block> {
  static constexpr bool kHasMin = true;
  static constexpr int kOffset = 0;
  static __m512 scales(const Block* b) {
    return _mm512_zextps128_ps512(_mm_permute_ps(scales_and_minima(b), 0b10'00));
  }
  static __m512 mins(const Block* b) {
    const __m128 minima = _mm_permute_ps(scales_and_minima(b), 0b11'01);
    return _mm512_zextps128_ps512(_mm_xor_ps(minima, _mm_set1_ps(-0.0f)));
  }

 private:
  // Those of the first block, then those of the second.
  static __m128 scales_and_minima(const Block* b) {
    static_assert(offsetof(Block, d) == 0 && offsetof(Block, m) == 2);
    std::uint32_t first;
    std::uint32_t second;
    std::memcpy(&first, b, 4);
    std::memcpy(&second, b + 1, 4);
    return _mm_cvtph_ps(
        _mm_cvtsi64_si128(static_cast<long long>(first | std::uint64_t{second} << 32)));
  }
};

template <>
struct Levels<BlockQ4_1> : LevelsWithMin<BlockQ4_1> {
  static __m512i levels(const BlockQ4_1* b, int) { return nibbles_of_two(b[0].qs, b[1].qs); }
};

template <>
struct Levels<BlockQ5_1> : LevelsWithMin<BlockQ5_1> {
  static __m512i levels(const BlockQ5_1* b, int) {
    return add_where(nibbles_of_two(b[0].qs, b[1].qs), b[0].qh, b[1].qh, 16);
  }
};

// Eight sub-blocks of 32 elements.
template <class Block>
struct LevelsOfK {
  static constexpr int kElements = 256;
  static constexpr int kSub = 32;
  static constexpr bool kHasMin = true;
  static constexpr int kBlocks = 1;
  static constexpr int kOffset = 0;

  static __m512 scales(const Block* b) {
    return _mm512_zextps256_ps512(ScalesOfK<Vnni, Block>::scales(*b));
  }
  static __m512 mins(const Block* b) {
    return _mm512_zextps256_ps512(ScalesOfK<Vnni, Block>::mins(*b));
  }
};

template <>
struct Levels<BlockQ4_K> : LevelsOfK<BlockQ4_K> {
  static __m512i levels(const BlockQ4_K* b, int g) { return nibbles_of_32_bytes(b->qs + 32 * g); }
};

template <>
struct Levels<BlockQ5_K> : LevelsOfK<BlockQ5_K> {
  // Bit s of the 32 bytes is the fifth bit of sub-block s.
  static __m512i levels(const BlockQ5_K* b, int g) {
    const __m512i nibbles = nibbles_of_32_bytes(b->qs + 32 * g);
    const __m512i fifths = _mm512_broadcast_i64x4(load256(b->qh));
    const __m512i wanted = _mm512_inserti64x4(_mm512_set1_epi8(static_cast<char>(1 << (2 * g))),
                                              _mm256_set1_epi8(static_cast<char>(2 << (2 * g))), 1);
    return _mm512_mask_add_epi8(nibbles, _mm512_test_epi8_mask(fifths, wanted), nibbles,
                                _mm512_set1_epi8(16));
  }
};

// 16 sub-blocks of 16 elements.
template <>
struct Levels<BlockQ6_K> {
  static constexpr int kElements = 256;
  static constexpr int kSub = 16;
  static constexpr bool kHasMin = false;
  static constexpr int kBlocks = 1;
  static constexpr int kOffset = 32;
  static __m512 scales(const BlockQ6_K* b) {
    const __m512 integers = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load128(b->scales)));
    return _mm512_mul_ps(integers, _mm512_set1_ps(_cvtsh_ss(b->d)));
  }
  static __m512 mins(const BlockQ6_K*) { return _mm512_setzero_ps(); }
  // Of 128 elements, 64 bytes hold the low nibbles of the first 64 and the high ones of the last;
  // 32 bytes hold the upper two bits of all, 32 elements per pair of bits.
  static __m512i levels(const BlockQ6_K* b, int g) {
    const __m512i low = _mm512_loadu_si512(b->ql + 64 * (g / 2));
    const __m512i nibbles = g % 2 == 0 ? low : _mm512_srli_epi16(low, 4);
    const __m512i twice = _mm512_broadcast_i64x4(load256(b->qh + 32 * (g / 2)));
    // To bits 4 and 5: up by 4 and 2, or down by 0 and 2.
    const __m512i high = g % 2 == 0
                             ? _mm512_sllv_epi64(twice, _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2))
                             : _mm512_srlv_epi64(twice, _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2));
    // (nibbles & 15) | (high & 48)
    return _mm512_ternarylogic_epi64(_mm512_and_si512(nibbles, _mm512_set1_epi8(15)), high,
                                     _mm512_set1_epi8(48), 0xf8);
  }
};

}  // namespace qwen::cpu
