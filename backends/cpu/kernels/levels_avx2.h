// Quantised blocks as bytes in 256-bit registers, and their scales.
//
// levels(): elements [32 i, 32 i + 32) of a block, with kOffset added to the levels of
// core/blocks.h. They are unsigned, or signed if kSigned. kChain is that of the largest level.
// scales() writes those of a block; scale() takes them, and gives every four of elements
// [32 i, 32 i + 32) theirs.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "backends/cpu/kernels/scales_of_k.h"
#include "core/blocks.h"

namespace qwen::cpu {

// Arch names the instruction set that this copy is compiled for (simd.h says why).
template <class Arch>
struct Bytes32 {
  static __m128i load_half(const void* p) {
    return _mm_loadu_si128(static_cast<const __m128i*>(p));
  }
  static __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static __m256i low_nibbles(__m256i bytes) {
    return _mm256_and_si256(bytes, _mm256_set1_epi8(15));
  }
  // Low nibbles of 16 bytes, then the high ones.
  static __m256i nibbles(const void* p) {
    const __m128i bytes = load_half(p);
    return low_nibbles(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes));
  }
  // 16 where a bit of the mask is set.
  static __m256i fifth_bits(const void* mask) {
    std::int32_t bits;
    std::memcpy(&bits, mask, 4);
    const __m256i byte_of_lane =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit_of_lane = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201u));
    const __m256i copies = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), byte_of_lane);
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(copies, bit_of_lane), bit_of_lane);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
  }
};

// Whether products of unsigned bytes of any value with signed ones can be taken.
template <class Arch>
inline constexpr bool kMultipliesAllBytes = false;

// Of products of pairs of levels with integers of magnitude 127, whose sum fits in 16 bits.
constexpr int longest_chain(int largest_level) { return 32767 / (2 * 127 * largest_level); }

template <class Arch, class Block>
struct Levels32;

// One scale for 32 elements.
template <class Arch, class Block>
struct LevelsOfBlock {
  static constexpr int kSub = 32;
  static constexpr bool kHasMin = false;
  static constexpr bool kSigned = false;
  static constexpr int kOffset = 0;
  static void scales(const Block& b, float* to) { to[0] = _cvtsh_ss(b.d); }
  static __m256 scale(const Block& b, const float*, int) {
    return _mm256_moveldup_ps(two_halves(b));
  }

 protected:
  // The first two numbers of a block, repeated; the second may have no meaning.
  static __m256 two_halves(const Block& b) {
    static_assert(offsetof(Block, d) == 0);
    std::int32_t bits;
    std::memcpy(&bits, &b, 4);
    return _mm256_cvtph_ps(_mm_set1_epi32(bits));
  }
};

// Levels of eight bits.
template <class Arch, class Block>
struct WideLevels : LevelsOfBlock<Arch, Block> {
  static constexpr bool kSigned = !kMultipliesAllBytes<Arch>;
  static constexpr int kOffset = kSigned ? 0 : 128;
  static constexpr int kChain = longest_chain(128);

 protected:
  static __m256i with_offset(__m256i levels) {
    return kSigned ? levels : _mm256_xor_si256(levels, _mm256_set1_epi8(-128));
  }
};

template <class Arch>
struct Levels32<Arch, BlockQ8_0> : WideLevels<Arch, BlockQ8_0> {
  static __m256i levels(const BlockQ8_0& b, int) {
    return Levels32::with_offset(Bytes32<Arch>::load(b.qs));
  }
};

template <class Arch>
struct Levels32<Arch, BlockIQ4_NL> : WideLevels<Arch, BlockIQ4_NL> {
  static __m256i levels(const BlockIQ4_NL& b, int) {
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
    return _mm256_shuffle_epi8(Levels32::with_offset(table), Bytes32<Arch>::nibbles(b.qs));
  }
};

template <class Arch>
struct Levels32<Arch, BlockQ4_0> : LevelsOfBlock<Arch, BlockQ4_0> {
  static constexpr int kOffset = 8;
  static constexpr int kChain = longest_chain(15);
  static __m256i levels(const BlockQ4_0& b, int) { return Bytes32<Arch>::nibbles(b.qs); }
};

template <class Arch>
struct Levels32<Arch, BlockQ5_0> : LevelsOfBlock<Arch, BlockQ5_0> {
  static constexpr int kOffset = 16;
  static constexpr int kChain = longest_chain(31);
  static __m256i levels(const BlockQ5_0& b, int) {
    return _mm256_or_si256(Bytes32<Arch>::nibbles(b.qs), Bytes32<Arch>::fifth_bits(b.qh));
  }
};

template <class Arch, class Block>
struct LevelsWithMin32 : LevelsOfBlock<Arch, Block> {
  static constexpr bool kHasMin = true;
  static void mins(const Block& b, float* to) { to[0] = -_cvtsh_ss(b.m); }
  // total - minima * sums, in any lanes; sums of the block's values, one per scale.
  static __m256 less_minima(__m256 total, const Block& b, const float* sums) {
    const __m256 sum = _mm256_zextps128_ps256(_mm_load_ss(sums));
    static_assert(offsetof(Block, m) == 2);
    // In the first lane alone: an infinite minimum times the zeros of the others is not a number.
    const __m256 minimum =
        _mm256_blend_ps(_mm256_setzero_ps(), _mm256_movehdup_ps(LevelsWithMin32::two_halves(b)), 1);
    return _mm256_fmadd_ps(minimum, sum, total);
  }
};

template <class Arch>
struct Levels32<Arch, BlockQ4_1> : LevelsWithMin32<Arch, BlockQ4_1> {
  static constexpr int kChain = longest_chain(15);
  static __m256i levels(const BlockQ4_1& b, int) { return Bytes32<Arch>::nibbles(b.qs); }
};

template <class Arch>
struct Levels32<Arch, BlockQ5_1> : LevelsWithMin32<Arch, BlockQ5_1> {
  static constexpr int kChain = longest_chain(31);
  static __m256i levels(const BlockQ5_1& b, int) {
    return _mm256_or_si256(Bytes32<Arch>::nibbles(b.qs), Bytes32<Arch>::fifth_bits(b.qh));
  }
};

// Eight sub-blocks of 32 elements.
template <class Arch, class Block>
struct LevelsOfK32 {
  using Scales = ScalesOfK<Arch, Block>;
  static constexpr int kSub = 32;
  static constexpr bool kHasMin = true;
  static constexpr bool kSigned = false;
  static constexpr int kOffset = 0;
  static void scales(const Block& b, float* to) { _mm256_storeu_ps(to, Scales::scales(b)); }
  static __m256 scale(const Block&, const float* scales, int i) {
    return _mm256_broadcast_ss(scales + i);
  }
  static void mins(const Block& b, float* to) { _mm256_storeu_ps(to, Scales::mins(b)); }
  static __m256 less_minima(__m256 total, const Block& b, const float* sums) {
    return _mm256_fnmadd_ps(Scales::mins(b), _mm256_loadu_ps(sums), total);
  }

 protected:
  // Elements [32 i, 32 i + 32): low nibbles of 32 bytes, then the high ones.
  static __m256i nibbles(const Block& b, int i) {
    const __m256i bytes = Bytes32<Arch>::load(b.qs + 32 * (i / 2));
    return Bytes32<Arch>::low_nibbles(i % 2 == 0 ? bytes : _mm256_srli_epi16(bytes, 4));
  }
};

template <class Arch>
struct Levels32<Arch, BlockQ4_K> : LevelsOfK32<Arch, BlockQ4_K> {
  static constexpr int kChain = longest_chain(15);
  static __m256i levels(const BlockQ4_K& b, int i) { return Levels32::nibbles(b, i); }
};

template <class Arch>
struct Levels32<Arch, BlockQ5_K> : LevelsOfK32<Arch, BlockQ5_K> {
  static constexpr int kChain = longest_chain(31);
  // Bit i of the 32 bytes is the fifth bit of sub-block i.
  static __m256i levels(const BlockQ5_K& b, int i) {
    const __m256i bits = Bytes32<Arch>::load(b.qh);
    const __m256i fifth = i < 4 ? _mm256_slli_epi16(bits, 4 - i) : _mm256_srli_epi16(bits, i - 4);
    return _mm256_or_si256(Levels32::nibbles(b, i), _mm256_and_si256(fifth, _mm256_set1_epi8(16)));
  }
};

// 16 sub-blocks of 16 elements.
template <class Arch>
struct Levels32<Arch, BlockQ6_K> {
  static constexpr int kSub = 16;
  static constexpr bool kHasMin = false;
  static constexpr bool kSigned = false;
  static constexpr int kOffset = 32;
  static constexpr int kChain = longest_chain(63);
  static void scales(const BlockQ6_K& b, float* to) {
    const __m256 d = _mm256_set1_ps(_cvtsh_ss(b.d));
    for (int i = 0; i < 16; i += 8) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(b.scales + i));
      _mm256_storeu_ps(to + i, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), d));
    }
  }
  static __m256 scale(const BlockQ6_K&, const float* scales, int i) {
    return _mm256_blend_ps(_mm256_broadcast_ss(scales + 2 * i),
                           _mm256_broadcast_ss(scales + 2 * i + 1), 0b1111'0000);
  }
  // Of 128 elements, 64 bytes hold the low nibbles of the first 64 and the high ones of the last;
  // 32 bytes hold the upper two bits of all, 32 elements per pair of bits.
  static __m256i levels(const BlockQ6_K& b, int i) {
    const int quarter = i % 4;
    const __m256i low = Bytes32<Arch>::load(b.ql + 64 * (i / 4) + 32 * (quarter % 2));
    const __m256i bits = Bytes32<Arch>::load(b.qh + 32 * (i / 4));
    const __m256i high = quarter < 2 ? _mm256_slli_epi16(bits, 4 - 2 * quarter)
                                     : _mm256_srli_epi16(bits, 2 * quarter - 4);
    return _mm256_or_si256(
        Bytes32<Arch>::low_nibbles(quarter < 2 ? low : _mm256_srli_epi16(low, 4)),
        _mm256_and_si256(high, _mm256_set1_epi8(48)));
  }
};

}  // namespace qwen::cpu
