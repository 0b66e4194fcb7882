// Products of bytes in 256-bit registers.
#pragma once

#include <immintrin.h>

#include "backends/cpu/kernels/simd_avx2.h"

namespace qwen::cpu {

// A register of levels, ready to be multiplied with integers of magnitude 127.
template <class Arch, bool kSigned>
struct Factor {
  explicit Factor(__m256i levels) : levels_(levels) {
    if constexpr (kSigned) magnitudes_ = _mm256_abs_epi8(levels);
  }

  // The sums of products of neighbours, 16 lanes of 16 bits.
  __m256i pairs(__m256i x) const {
    if constexpr (kSigned) {
      // 128 * 127 * 2 fits, and unsigned 255 * 127 * 2 would not.
      return _mm256_maddubs_epi16(magnitudes_, _mm256_sign_epi8(x, levels_));
    } else {
      return _mm256_maddubs_epi16(levels_, x);
    }
  }
  // sum + those of four neighbours.
  __m256i add_to(__m256i sum, __m256i x) const { return add_pairs(sum, pairs(x)); }

  static __m256i add_pairs(__m256i sum, __m256i pairs) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

 private:
  __m256i levels_, magnitudes_;
};

}  // namespace qwen::cpu
