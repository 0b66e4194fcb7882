// The same with AVX-VNNI, which adds four products at once to sums of 32 bits.
#pragma once

#include <immintrin.h>

#include "backends/cpu/kernels/int8_dot_avx2.h"

namespace qwen::cpu {

struct AvxVnni;  // names copies of templates that are compiled for it (simd.h says why)

template <>
inline constexpr bool kMultipliesAllBytes<AvxVnni> = true;

template <class Panel>
class Factor<AvxVnni, Panel> {
 public:
  static_assert(!Panel::kSigned);
  static constexpr int kChain = Panel::kSub / 4;  // any length would do

  explicit Factor(__m256i levels) : levels_(levels) {}

  __m256i first(__m256i x) const { return next(_mm256_setzero_si256(), x); }
  __m256i next(__m256i chain, __m256i x) const {
    return _mm256_dpbusd_avx_epi32(chain, levels_, x);
  }
  static __m256i add_chain(__m256i sum, __m256i chain) { return _mm256_add_epi32(sum, chain); }

 private:
  __m256i levels_;
};

}  // namespace qwen::cpu
