// 16 words in a 512-bit register.
#pragma once

#include <immintrin.h>

#include "backends/cpu/kernels/transpose_avx512.h"
#include "backends/cpu/kernels/words.h"

namespace qwen::cpu {

struct Vnni;  // names copies of templates that are compiled for it (simd.h says why)

template <>
struct WordVector<Vnni> {
  using Word = std::uint32_t __attribute__((vector_size(64)));
  using Int = std::int32_t __attribute__((vector_size(64)));
  using Float = float __attribute__((vector_size(64)));

  static Float halves(const std::byte* p) {
    return std::bit_cast<Float>(
        _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
  }
  static Word load_quarters(const std::byte* p, std::size_t stride) {
    const auto quarter = [&](int i) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i * stride));
    };
    __m512i all = _mm512_castsi128_si512(quarter(0));
    all = _mm512_inserti32x4(all, quarter(1), 1);
    all = _mm512_inserti32x4(all, quarter(2), 2);
    all = _mm512_inserti32x4(all, quarter(3), 3);
    return std::bit_cast<Word>(all);
  }
  static void transpose_quarters(Word (&w)[4]) {
    __m512i v[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) v[i] = std::bit_cast<__m512i>(w[i]);
    transpose_4x4_lanes<Vnni>(v);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) w[i] = std::bit_cast<Word>(v[i]);
  }
  static Float low_halves(Word w) {
    return std::bit_cast<Float>(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(std::bit_cast<__m512i>(w))));
  }
  static Word lookup(Word w, const std::int8_t* levels) {
    const __m512i table =
        _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(levels)));
    return std::bit_cast<Word>(_mm512_shuffle_epi8(table, std::bit_cast<__m512i>(w)));
  }
  static Word spread(Word w, int k, char value) {
    const __m512i byte_of_lane =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
    const __m512i copies = _mm512_shuffle_epi8(
        std::bit_cast<__m512i>(w),
        _mm512_add_epi8(byte_of_lane, _mm512_set1_epi8(static_cast<char>(k / 2))));
    const __m512i bits = _mm512_set1_epi32(k % 2 == 0 ? 0x08040201 : static_cast<int>(0x80402010));
    return std::bit_cast<Word>(_mm512_maskz_set1_epi8(_mm512_test_epi8_mask(copies, bits), value));
  }
};

}  // namespace qwen::cpu
