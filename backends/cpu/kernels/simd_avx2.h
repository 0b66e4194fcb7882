// AVX2 with FMA and F16C.
#pragma once

#include <immintrin.h>

#include "backends/cpu/kernels/simd.h"

namespace qwen::cpu {

using Avx2 = xsimd::fma3<xsimd::avx2>;

template <>
struct Simd<Avx2> : Transpose4x4<Avx2> {
  using V = xsimd::batch<float, Avx2>;
  static constexpr std::int64_t kLanes = 8;
  static constexpr int kTileRows = 6;

  static V fma(V a, V b, V c) { return V(_mm256_fmadd_ps(a, b, c)); }
  static float f16(std::uint16_t h) { return _cvtsh_ss(h); }
  static std::uint16_t to_f16(float v) { return _cvtss_sh(v, _MM_FROUND_TO_NEAREST_INT); }
  static V load_f16(const std::uint16_t* p) {
    return V(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static V load_bf16(const std::uint16_t* p) {
    const __m256i wide =
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return V(_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
  }
  static V load_i8(const std::int8_t* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return V(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
  }
  static void spread_bits(std::uint32_t mask, std::uint8_t value, std::uint8_t* out) {
    const __m256i byte_of_lane =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit_of_lane = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201u));
    const __m256i copies =
        _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(mask)), byte_of_lane);
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(copies, bit_of_lane), bit_of_lane);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                        _mm256_and_si256(set, _mm256_set1_epi8(static_cast<char>(value))));
  }
  static void iq4_levels(std::int8_t* q) {
    const __m128i levels =
        _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
    auto* p = reinterpret_cast<__m128i*>(q);
    _mm_storeu_si128(p, _mm_shuffle_epi8(levels, _mm_loadu_si128(p)));
  }
  static void store_f16(V v, std::uint16_t* p) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
};

}  // namespace qwen::cpu
