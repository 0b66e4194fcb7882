// Blocks of integers in 256-bit registers.
#pragma once

#include <immintrin.h>

#include "backends/cpu/kernels/int8_rows.h"

namespace qwen::cpu {

template <class Arch>
class Integers {
 public:
  static float largest_magnitude(const float* p) {
    __m256i largest = magnitudes(p);
    for (int i = 8; i < 32; i += 8) largest = _mm256_max_epu32(largest, magnitudes(p + i));
    __m128i of_lanes =
        _mm_max_epu32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
    of_lanes = _mm_max_epu32(of_lanes, _mm_shuffle_epi32(of_lanes, 0b01'00'11'10));
    of_lanes = _mm_max_epu32(of_lanes, _mm_shuffle_epi32(of_lanes, 0b10'11'00'01));
    return _mm_cvtss_f32(_mm_castsi128_ps(of_lanes));
  }

  Integers() : v_{} {}
  Integers(const float* p, float factor) {
    for (int i = 0; i < 4; ++i) {
      v_[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(p + 8 * i), _mm256_set1_ps(factor)));
    }
  }

  Integers whole() const {
    static_assert(kInt8Fine == 128);
    Integers to;
    for (int i = 0; i < 4; ++i) {
      const __m256i up = _mm256_and_si256(_mm256_srai_epi32(v_[i], 31), _mm256_set1_epi32(127));
      to.v_[i] = _mm256_srai_epi32(_mm256_add_epi32(v_[i], up), 7);
    }
    return to;
  }
  Integers rest(const Integers& whole) const {
    Integers to;
    for (int i = 0; i < 4; ++i) {
      to.v_[i] = _mm256_sub_epi32(v_[i], _mm256_slli_epi32(whole.v_[i], 7));
    }
    return to;
  }
  void store(std::int8_t* low, std::int8_t* high) const {
    const __m256i bytes = in_order(
        _mm256_packs_epi16(_mm256_packs_epi32(v_[0], v_[1]), _mm256_packs_epi32(v_[2], v_[3])));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(low), _mm256_castsi256_si128(bytes));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(high), _mm256_extracti128_si256(bytes, 1));
  }
  template <int kSub>
  void sums(std::int32_t (&sums)[kInt8Block / kSub]) const {
    const __m256i fours = in_order(
        _mm256_hadd_epi32(_mm256_hadd_epi32(v_[0], v_[1]), _mm256_hadd_epi32(v_[2], v_[3])));
    alignas(32) std::int32_t all[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(all), fours);
    for (int i = 0; i < kInt8Block / kSub; ++i) {
      sums[i] = 0;
      for (int j = 0; j < kSub / 4; ++j) sums[i] += all[kSub / 4 * i + j];
    }
  }

 private:
  static __m256i magnitudes(const float* p) {
    return _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
                            _mm256_set1_epi32(0x7fffffff));
  }
  // Packing and horizontal addition leave the lower halves of all registers before the upper ones.
  static __m256i in_order(__m256i dwords) {
    return _mm256_permutevar8x32_epi32(dwords, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }

  __m256i v_[4];
};

}  // namespace qwen::cpu
