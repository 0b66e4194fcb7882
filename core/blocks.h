// The block layouts of the weight formats, as they lie in a GGUF file, and for each the scalar
// definition of element i. Formulas: GGUF specification, ggml's block formats; every faster decoder
// is checked against value().
//
// Each product scale * quant fits in 24 bits and is exact in FP32; formats with a minimum round
// once, at the final addition. So the order of evaluation and fused multiply-adds cannot change a
// bit.
//
// A format with a minimum offers it as minimum(i): value(i) is scale * quant - minimum(i).
//
// All members are bytes or 16-bit integers (little-endian): the structs need 2-byte alignment and
// have no padding. value() is constexpr, without lookup in global memory, so that device code can
// call it too.
#pragma once

#include <cstdint>
#include <span>

#include "core/dtype.h"
#include "core/half.h"

namespace qwen {

// Four-bit quants of 32 elements: low nibbles are elements 0-15, high nibbles 16-31.
constexpr int nibble_of_32(const std::uint8_t* qs, int i) {
  return (qs[i % 16] >> (4 * (i / 16))) & 15;
}

// Bit i of a little-endian 32-bit mask.
constexpr int bit_of_32(const std::uint8_t* mask, int i) { return (mask[i / 8] >> (i % 8)) & 1; }

// The 16 levels of the non-linear four-bit formats.
constexpr int iq4_level(int q) {
  constexpr std::int8_t kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                       1,    13,   25,  38,  53,  69,  89,  113};
  return kLevels[q];
}

// Six-bit scale and minimum of sub-block s (0-7) of Q4_K and Q5_K, packed into 12 bytes.
constexpr int k_scale(const std::uint8_t* scales, int s) {
  return s < 4 ? scales[s] & 63 : (scales[4 + s] & 15) | (scales[s - 4] >> 6) << 4;
}
constexpr int k_min(const std::uint8_t* scales, int s) {
  return s < 4 ? scales[4 + s] & 63 : scales[4 + s] >> 4 | (scales[s] >> 6) << 4;
}

struct BlockQ8_0 {
  static constexpr DType kDType = DType::kQ8_0;
  static constexpr int kElements = 32;
  std::uint16_t d;  // F16
  std::int8_t qs[32];
  constexpr float value(int i) const { return f16_to_f32(d) * static_cast<float>(qs[i]); }
};
static_assert(sizeof(BlockQ8_0) == 34);

struct BlockQ4_0 {
  static constexpr DType kDType = DType::kQ4_0;
  static constexpr int kElements = 32;
  std::uint16_t d;
  std::uint8_t qs[16];
  constexpr float value(int i) const {
    return f16_to_f32(d) * static_cast<float>(nibble_of_32(qs, i) - 8);
  }
};
static_assert(sizeof(BlockQ4_0) == 18);

struct BlockQ4_1 {
  static constexpr DType kDType = DType::kQ4_1;
  static constexpr int kElements = 32;
  std::uint16_t d;
  std::uint16_t m;
  std::uint8_t qs[16];
  constexpr float minimum(int /*i*/) const { return -f16_to_f32(m); }
  constexpr float value(int i) const {
    return f16_to_f32(d) * static_cast<float>(nibble_of_32(qs, i)) - minimum(i);
  }
};
static_assert(sizeof(BlockQ4_1) == 20);

struct BlockQ5_0 {
  static constexpr DType kDType = DType::kQ5_0;
  static constexpr int kElements = 32;
  std::uint16_t d;
  std::uint8_t qh[4];  // fifth bits
  std::uint8_t qs[16];
  constexpr float value(int i) const {
    const int q = nibble_of_32(qs, i) | bit_of_32(qh, i) << 4;
    return f16_to_f32(d) * static_cast<float>(q - 16);
  }
};
static_assert(sizeof(BlockQ5_0) == 22);

struct BlockQ5_1 {
  static constexpr DType kDType = DType::kQ5_1;
  static constexpr int kElements = 32;
  std::uint16_t d;
  std::uint16_t m;
  std::uint8_t qh[4];
  std::uint8_t qs[16];
  constexpr float minimum(int /*i*/) const { return -f16_to_f32(m); }
  constexpr float value(int i) const {
    const int q = nibble_of_32(qs, i) | bit_of_32(qh, i) << 4;
    return f16_to_f32(d) * static_cast<float>(q) - minimum(i);
  }
};
static_assert(sizeof(BlockQ5_1) == 24);

struct BlockIQ4_NL {
  static constexpr DType kDType = DType::kIQ4_NL;
  static constexpr int kElements = 32;
  std::uint16_t d;
  std::uint8_t qs[16];
  constexpr float value(int i) const {
    return f16_to_f32(d) * static_cast<float>(iq4_level(nibble_of_32(qs, i)));
  }
};
static_assert(sizeof(BlockIQ4_NL) == 18);

// 16 sub-blocks of 16 elements, each with a four-bit scale (low nibble) and minimum (high nibble).
struct BlockQ2_K {
  static constexpr DType kDType = DType::kQ2_K;
  static constexpr int kElements = 256;
  std::uint8_t scales[16];
  std::uint8_t qs[64];
  std::uint16_t d;
  std::uint16_t dmin;
  constexpr float minimum(int i) const {
    return f16_to_f32(dmin) * static_cast<float>(scales[i / 16] >> 4);
  }
  constexpr float value(int i) const {
    const int sc = scales[i / 16];
    const int q = (qs[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4))) & 3;
    return f16_to_f32(d) * static_cast<float>(sc & 15) * static_cast<float>(q) - minimum(i);
  }
};
static_assert(sizeof(BlockQ2_K) == 84);

// 16 sub-blocks of 16 elements with signed six-bit scales; the third bit of a quant is inverted.
struct BlockQ3_K {
  static constexpr DType kDType = DType::kQ3_K;
  static constexpr int kElements = 256;
  std::uint8_t hmask[32];
  std::uint8_t qs[64];
  std::uint8_t scales[12];
  std::uint16_t d;
  constexpr int scale(int j) const {
    const int low = (scales[j % 8] >> (4 * (j / 8))) & 15;
    const int high = (scales[8 + j % 4] >> (2 * (j / 4))) & 3;
    return (low | high << 4) - 32;
  }
  constexpr float value(int i) const {
    const int low = (qs[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4))) & 3;
    const int high = (hmask[i % 32] >> (i / 32)) & 1;
    return f16_to_f32(d) * static_cast<float>(scale(i / 16)) *
           static_cast<float>(low - 4 * (1 - high));
  }
};
static_assert(sizeof(BlockQ3_K) == 110);

struct BlockQ4_K {
  static constexpr DType kDType = DType::kQ4_K;
  static constexpr int kElements = 256;
  std::uint16_t d;
  std::uint16_t dmin;
  std::uint8_t scales[12];
  std::uint8_t qs[128];
  constexpr float minimum(int i) const {
    return f16_to_f32(dmin) * static_cast<float>(k_min(scales, i / 32));
  }
  constexpr float value(int i) const {
    const int s = i / 32;
    const int q = (qs[32 * (i / 64) + i % 32] >> (4 * (s % 2))) & 15;
    return f16_to_f32(d) * static_cast<float>(k_scale(scales, s)) * static_cast<float>(q) -
           minimum(i);
  }
};
static_assert(sizeof(BlockQ4_K) == 144);

struct BlockQ5_K {
  static constexpr DType kDType = DType::kQ5_K;
  static constexpr int kElements = 256;
  std::uint16_t d;
  std::uint16_t dmin;
  std::uint8_t scales[12];
  std::uint8_t qh[32];
  std::uint8_t qs[128];
  constexpr float minimum(int i) const {
    return f16_to_f32(dmin) * static_cast<float>(k_min(scales, i / 32));
  }
  constexpr float value(int i) const {
    const int s = i / 32;
    const int low = (qs[32 * (i / 64) + i % 32] >> (4 * (s % 2))) & 15;
    const int high = (qh[i % 32] >> s) & 1;
    return f16_to_f32(d) * static_cast<float>(k_scale(scales, s)) *
               static_cast<float>(low | high << 4) -
           minimum(i);
  }
};
static_assert(sizeof(BlockQ5_K) == 176);

struct BlockQ6_K {
  static constexpr DType kDType = DType::kQ6_K;
  static constexpr int kElements = 256;
  std::uint8_t ql[128];
  std::uint8_t qh[64];
  std::int8_t scales[16];
  std::uint16_t d;
  constexpr float value(int i) const {
    const int low = (ql[64 * (i / 128) + i % 64] >> (4 * (i / 64 % 2))) & 15;
    const int high = (qh[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4))) & 3;
    const int sc = scales[i / 16];
    return f16_to_f32(d) * static_cast<float>(sc) * static_cast<float>((low | high << 4) - 32);
  }
};
static_assert(sizeof(BlockQ6_K) == 210);

struct BlockIQ4_XS {
  static constexpr DType kDType = DType::kIQ4_XS;
  static constexpr int kElements = 256;
  std::uint16_t d;
  std::uint16_t scales_high;
  std::uint8_t scales_low[4];
  std::uint8_t qs[128];
  constexpr int scale(int s) const {
    const int low = (scales_low[s / 2] >> (4 * (s % 2))) & 15;
    return (low | ((scales_high >> (2 * s)) & 3) << 4) - 32;
  }
  constexpr float value(int i) const {
    const int s = i / 32;
    return f16_to_f32(d) * static_cast<float>(scale(s)) *
           static_cast<float>(iq4_level(nibble_of_32(qs + 16 * s, i % 32)));
  }
};
static_assert(sizeof(BlockIQ4_XS) == 136);

// Every element type, one row each: adding a format starts here.
std::span<const DTypeInfo> dtype_table();

}  // namespace qwen
