// AVX-512 F, CD, DQ, BW and VL.
#pragma once

#include <immintrin.h>

#include "backends/cpu/kernels/simd.h"
#include "backends/cpu/kernels/transpose_avx512.h"

namespace qwen::cpu {

using Avx512 = xsimd::avx512bw;

template <>
struct Simd<Avx512> {
  using V = xsimd::batch<float, Avx512>;
  static constexpr std::int64_t kLanes = 16;
  // 14 x 2 accumulators, 2 loads and 1 broadcast: 31 of the 32 registers.
  static constexpr int kTileRows = 14;
  static constexpr std::int64_t kTranspose = 16;

  static void transpose(const float* src, std::int64_t lds, float* dst, std::int64_t ldd) {
    __m512i v[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) v[i] = _mm512_loadu_si512(src + i * lds);
    transpose_16x16<Avx512>(v);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_storeu_si512(dst + i * ldd, v[i]);
  }

  static V fma(V a, V b, V c) { return V(_mm512_fmadd_ps(a, b, c)); }
  static float f16(std::uint16_t h) { return _cvtsh_ss(h); }
  static std::uint16_t to_f16(float v) { return _cvtss_sh(v, _MM_FROUND_TO_NEAREST_INT); }
  static V load_f16(const std::uint16_t* p) {
    return V(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
  }
  static V load_bf16(const std::uint16_t* p) {
    const __m512i wide =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return V(_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16)));
  }
  static V load_i8(const std::int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return V(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
  }
  static void spread_bits(std::uint32_t mask, std::uint8_t value, std::uint8_t* out) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                        _mm256_maskz_set1_epi8(mask, static_cast<char>(value)));
  }
  static void iq4_levels(std::int8_t* q) {
    const __m128i levels =
        _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
    auto* p = reinterpret_cast<__m128i*>(q);
    _mm_storeu_si128(p, _mm_shuffle_epi8(levels, _mm_loadu_si128(p)));
  }
  static void store_f16(V v, std::uint16_t* p) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
};

}  // namespace qwen::cpu
