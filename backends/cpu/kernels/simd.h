// What xsimd lacks, per instruction set: loads that widen to float, and on AVX-512 the fused
// multiply-add (its version 8.1 multiplies and adds there, at half the speed). The primary template
// is portable; simd_avx2.h and simd_avx512.h specialise it. Everything depends on the architecture
// type, so that no function compiled for one instruction set can be linked into another.
#pragma once

#include <cstdint>
#include <cstring>
#include <xsimd/xsimd.hpp>

#include "core/blocks.h"
#include "core/half.h"

namespace qwen::cpu {

// Blocks of 4 x 4 in 128-bit registers.
template <class Arch>
struct Transpose4x4 {
  static constexpr std::int64_t kTranspose = 4;
  static void transpose(const float* src, std::int64_t lds, float* dst, std::int64_t ldd) {
    using V = xsimd::make_sized_batch_t<float, 4>;
    const V r0 = V::load_unaligned(src);
    const V r1 = V::load_unaligned(src + lds);
    const V r2 = V::load_unaligned(src + 2 * lds);
    const V r3 = V::load_unaligned(src + 3 * lds);
    const V low02 = xsimd::zip_lo(r0, r2);
    const V low13 = xsimd::zip_lo(r1, r3);
    const V high02 = xsimd::zip_hi(r0, r2);
    const V high13 = xsimd::zip_hi(r1, r3);
    xsimd::zip_lo(low02, low13).store_unaligned(dst);
    xsimd::zip_hi(low02, low13).store_unaligned(dst + ldd);
    xsimd::zip_lo(high02, high13).store_unaligned(dst + 2 * ldd);
    xsimd::zip_hi(high02, high13).store_unaligned(dst + 3 * ldd);
  }
};

template <class Arch>
struct Simd : Transpose4x4<Arch> {
  using V = xsimd::batch<float, Arch>;
  static constexpr std::int64_t kLanes = V::size;
  // Register tile of matmul: rows x vectors. 6 x 2 accumulators, 2 loads and 1 broadcast fit the 16
  // registers of SSE and AVX2.
  static constexpr int kTileRows = 6;

  static V fma(V a, V b, V c) { return a * b + c; }
  template <class T, class Convert>
  static V widen(const T* p, Convert convert) {
    alignas(64) float lanes[kLanes];
    for (std::int64_t i = 0; i < kLanes; ++i) lanes[i] = convert(p[i]);
    return V::load_aligned(lanes);
  }
  static float f16(std::uint16_t h) { return f16_to_f32(h); }
  static std::uint16_t to_f16(float v) { return f32_to_f16(v); }
  static V load_f16(const std::uint16_t* p) {
    return widen(p, [](std::uint16_t h) { return f16_to_f32(h); });
  }
  static V load_bf16(const std::uint16_t* p) {
    return widen(p, [](std::uint16_t h) { return bf16_to_f32(h); });
  }
  static V load_i8(const std::int8_t* p) {
    return widen(p, [](std::int8_t q) { return static_cast<float>(q); });
  }
  // out[i] = value if bit i is set, else 0; for the 32 bits of mask.
  static void spread_bits(std::uint32_t mask, std::uint8_t value, std::uint8_t* out) {
    for (int byte = 0; byte < 4; ++byte) {
      // Eight copies of the byte, bit i kept in copy i; then every copy that is not 0 becomes 1.
      const std::uint64_t one_bit_each =
          ((mask >> (8 * byte)) & 0xffu) * 0x0101010101010101u & 0x8040201008040201u;
      const std::uint64_t carry = (one_bit_each & 0x7f7f7f7f7f7f7f7fu) + 0x7f7f7f7f7f7f7f7fu;
      const std::uint64_t ones = ((carry | one_bit_each) >> 7) & 0x0101010101010101u;
      const std::uint64_t bytes = ones * value;
      std::memcpy(out + 8 * byte, &bytes, 8);
    }
  }
  // Replaces 16 four-bit quants by their levels.
  static void iq4_levels(std::int8_t* q) {
    for (int i = 0; i < 16; ++i) q[i] = static_cast<std::int8_t>(iq4_level(q[i]));
  }
  static void store_f16(V v, std::uint16_t* p) {
    alignas(64) float lanes[kLanes];
    v.store_aligned(lanes);
    for (std::int64_t i = 0; i < kLanes; ++i) p[i] = f32_to_f16(lanes[i]);
  }
};

}  // namespace qwen::cpu
