// Scalar conversion between FP32 and the two 16-bit float formats. Both directions are exact where
// the value is representable; otherwise they round to nearest, ties to even. Everything is
// constexpr and uses integer arithmetic only, so that host and device code give the same bits.
#pragma once

#include <bit>
#include <cstdint>

namespace qwen {

// IEEE binary16. Subnormals and infinities are exact, NaN keeps its payload.
constexpr float f16_to_f32(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 31u;
  const std::uint32_t mantissa = half & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in FP32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

// Values from 65520 up become infinity, NaN stays NaN (quiet).
constexpr std::uint16_t f32_to_f16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  }
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (magnitude >=
      0x38800000u) {  // at least 2^-14: normal; a carry runs into the exponent, as it should
    const std::uint32_t rounded = magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u);
    return static_cast<std::uint16_t>(sign | rounded >> 13);
  }
  // Subnormal: mantissa * 2^(exponent - 150) in units of 2^-24.
  const std::uint32_t shift = 126 - (magnitude >> 23);
  if (shift > 24) return static_cast<std::uint16_t>(sign);  // below half a unit
  const std::uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  const std::uint32_t quotient = mantissa >> shift;
  const std::uint32_t rest = mantissa & ((1u << shift) - 1);
  const std::uint32_t half = 1u << (shift - 1);
  const bool up = rest > half || (rest == half && (quotient & 1u) != 0);
  return static_cast<std::uint16_t>(sign | (quotient + (up ? 1u : 0u)));
}

// The nearest binary16 value.
constexpr float round_to_f16(float value) { return f16_to_f32(f32_to_f16(value)); }

// bfloat16 is the upper half of FP32.
constexpr float bf16_to_f32(std::uint16_t half) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16);
}

constexpr std::uint16_t f32_to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace qwen
