// Products of levels with integers of magnitude 127, as bytes in 256-bit registers.
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "backends/cpu/kernels/panels.h"
#include "backends/cpu/kernels/words_avx2.h"

namespace qwen::cpu {

// The levels of eight rows of a panel, four columns of each. Products of pairs (kChain of them) are
// added up in chains, whose sums fit in 16 bits, and these in sums, one lane per row.
template <class Arch, class Panel>
class Factor {
 public:
  static constexpr int kChain = std::min(Panel::kSub / 4, 32767 / (2 * 127 * Panel::kLargest));

  explicit Factor(__m256i levels) : levels_(levels) {
    if constexpr (Panel::kSigned) magnitudes_ = _mm256_abs_epi8(levels);
  }

  __m256i first(__m256i x) const {
    if constexpr (Panel::kSigned) {
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

 private:
  __m256i levels_;
  __m256i magnitudes_;  // if signed
};

}  // namespace qwen::cpu
