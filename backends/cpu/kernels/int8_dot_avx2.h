// Products of levels with integers of magnitude 127, as bytes in 256-bit registers.
#pragma once

#include <immintrin.h>

#include "backends/cpu/kernels/levels_avx2.h"

namespace qwen::cpu {

// A register of levels. Products of pairs (L::kChain of them) are added up in chains, and these in
// sums, whose eight lanes are for four columns each.
template <class Arch, class L>
class Factor {
 public:
  static constexpr int kChain = L::kChain;

  explicit Factor(__m256i levels) : levels_(levels) {
    if constexpr (L::kSigned) magnitudes_ = _mm256_abs_epi8(levels);
  }

  __m256i first(__m256i x) const {
    if constexpr (L::kSigned) {
      // 128 * 127 * 2 fits in 16 bits; levels with an offset would have 255 * 127 * 2.
      return _mm256_maddubs_epi16(magnitudes_, _mm256_sign_epi8(x, levels_));
    } else {
      return _mm256_maddubs_epi16(levels_, x);
    }
  }
  __m256i next(__m256i chain, __m256i x) const { return _mm256_add_epi16(chain, first(x)); }
  static __m256i add_chain(__m256i sum, __m256i chain) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(chain, _mm256_set1_epi16(1)));
  }
  // sum + the products with x alone.
  __m256i add_to(__m256i sum, __m256i x) const { return add_chain(sum, first(x)); }

 private:
  __m256i levels_;
  __m256i magnitudes_;  // if signed
};

}  // namespace qwen::cpu
