// Blocks of integers in 512-bit registers.
#pragma once

#include <immintrin.h>

#include "backends/cpu/kernels/int8_rows.h"
#include "backends/cpu/kernels/words_avx512.h"

namespace qwen::cpu {

template <>
class Integers<Vnni> {
 public:
  static float largest_magnitude(const float* p) {
    const __m512i no_sign = _mm512_set1_epi32(0x7fffffff);
    const __m512i largest = _mm512_max_epu32(_mm512_and_si512(_mm512_loadu_si512(p), no_sign),
                                             _mm512_and_si512(_mm512_loadu_si512(p + 16), no_sign));
    return _mm_cvtss_f32(
        _mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(_mm512_reduce_max_epu32(largest)))));
  }

  Integers() : Integers(_mm512_setzero_si512(), _mm512_setzero_si512()) {}
  Integers(const float* p, float factor) : Integers(rounded(p, factor), rounded(p + 16, factor)) {}

  Integers whole() const { return {whole(low_), whole(high_)}; }
  Integers rest(const Integers& whole) const {
    return {_mm512_sub_epi32(low_, _mm512_slli_epi32(whole.low_, 7)),
            _mm512_sub_epi32(high_, _mm512_slli_epi32(whole.high_, 7))};
  }
  void store(std::int8_t* low, std::int8_t* high) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(low), _mm512_cvtepi32_epi8(low_));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(high), _mm512_cvtepi32_epi8(high_));
  }
  template <int kSub>
  void sums(std::int32_t (&sums)[kInt8Block / kSub]) const {
    if constexpr (kSub == 32) {
      sums[0] = _mm512_reduce_add_epi32(_mm512_add_epi32(low_, high_));
    } else {
      static_assert(kSub == 16);
      sums[0] = _mm512_reduce_add_epi32(low_);
      sums[1] = _mm512_reduce_add_epi32(high_);
    }
  }

 private:
  Integers(__m512i low, __m512i high) : low_(low), high_(high) {}
  static __m512i rounded(const float* p, float factor) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(p), _mm512_set1_ps(factor)));
  }
  static __m512i whole(__m512i v) {
    static_assert(kInt8Fine == 128);
    const __m512i up = _mm512_and_si512(_mm512_srai_epi32(v, 31), _mm512_set1_epi32(127));
    return _mm512_srai_epi32(_mm512_add_epi32(v, up), 7);
  }

  __m512i low_, high_;
};

}  // namespace qwen::cpu
