// 16 words in two 256-bit registers.
#pragma once

#include <immintrin.h>

#include "backends/cpu/kernels/words.h"

namespace qwen::cpu {

template <class Arch>
struct WordVector {
  using Word = std::uint32_t __attribute__((vector_size(32)));
  using Int = std::int32_t __attribute__((vector_size(32)));
  using Float = float __attribute__((vector_size(32)));

  static Float halves(const std::byte* p) {
    return std::bit_cast<Float>(
        _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static Word load_quarters(const std::byte* p, std::size_t stride) {
    return std::bit_cast<Word>(_mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(p + stride),
                                                   reinterpret_cast<const __m128i*>(p)));
  }
  static void transpose_quarters(Word (&w)[4]) {
    const auto of = [&w](int i) { return std::bit_cast<__m256i>(w[i]); };
    const __m256i low0 = _mm256_unpacklo_epi32(of(0), of(1));
    const __m256i high0 = _mm256_unpackhi_epi32(of(0), of(1));
    const __m256i low2 = _mm256_unpacklo_epi32(of(2), of(3));
    const __m256i high2 = _mm256_unpackhi_epi32(of(2), of(3));
    w[0] = std::bit_cast<Word>(_mm256_unpacklo_epi64(low0, low2));
    w[1] = std::bit_cast<Word>(_mm256_unpackhi_epi64(low0, low2));
    w[2] = std::bit_cast<Word>(_mm256_unpacklo_epi64(high0, high2));
    w[3] = std::bit_cast<Word>(_mm256_unpackhi_epi64(high0, high2));
  }
  static Float low_halves(Word w) {
    const __m256i low = _mm256_and_si256(std::bit_cast<__m256i>(w), _mm256_set1_epi32(0xffff));
    const __m128i packed =
        _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    return std::bit_cast<Float>(_mm256_cvtph_ps(packed));
  }
  static Word lookup(Word w, const std::int8_t* levels) {
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(levels)));
    return std::bit_cast<Word>(_mm256_shuffle_epi8(table, std::bit_cast<__m256i>(w)));
  }
  static Word spread(Word w, int k, char value) {
    const __m256i byte_of_lane = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
    const __m256i copies = _mm256_shuffle_epi8(
        std::bit_cast<__m256i>(w),
        _mm256_add_epi8(byte_of_lane, _mm256_set1_epi8(static_cast<char>(k / 2))));
    const __m256i bits = _mm256_set1_epi32(k % 2 == 0 ? 0x08040201 : static_cast<int>(0x80402010));
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(copies, bits), bits);
    return std::bit_cast<Word>(_mm256_and_si256(set, _mm256_set1_epi8(value)));
  }
};

}  // namespace qwen::cpu
