// Quantised blocks as small integers and their scales: element i is scale[i / kSub] * q[i], minus
// min[i / kSub] in formats that have one. The loops are written so that compilers vectorise them;
// the definition they are checked against is value() in core/blocks.h.
#pragma once

#include "backends/cpu/kernels/simd.h"
#include "core/blocks.h"

namespace qwen::cpu {

// Arch only names the instruction set that this copy is compiled for (simd.h says why).
template <class Arch, class Block>
struct Unpack;

// 16 bytes in a register, whatever the instruction set.
using Bytes16 = xsimd::make_sized_batch_t<std::uint8_t, 16>;

// 32 four-bit quants less `offset`: low nibbles first.
template <class Arch>
inline void nibbles_of_32(const std::uint8_t* qs, std::uint8_t offset, std::int8_t* q) {
  const Bytes16 bytes = Bytes16::load_unaligned(qs);
  auto* out = reinterpret_cast<std::uint8_t*>(q);
  ((bytes & Bytes16(15)) - Bytes16(offset)).store_unaligned(out);
  (((bytes >> 4) & Bytes16(15)) - Bytes16(offset)).store_unaligned(out + 16);
}

// 32 five-bit quants less `offset`: four bits as above, the fifth in a mask.
template <class Arch>
inline void five_bits_of_32(const std::uint8_t* qs, const std::uint8_t* mask, std::uint8_t offset,
                            std::int8_t* q) {
  std::uint32_t bits;
  std::memcpy(&bits, mask, sizeof bits);
  std::uint8_t fifth[32];
  Simd<Arch>::spread_bits(bits, 16, fifth);
  const Bytes16 bytes = Bytes16::load_unaligned(qs);
  auto* out = reinterpret_cast<std::uint8_t*>(q);
  ((bytes & Bytes16(15)) + Bytes16::load_unaligned(fifth) - Bytes16(offset)).store_unaligned(out);
  (((bytes >> 4) & Bytes16(15)) + Bytes16::load_unaligned(fifth + 16) - Bytes16(offset))
      .store_unaligned(out + 16);
}

// 32 quants of the non-linear four-bit formats.
template <class Arch>
inline void levels_of_32(const std::uint8_t* qs, std::int8_t* q) {
  nibbles_of_32<Arch>(qs, 0, q);
  Simd<Arch>::iq4_levels(q);
  Simd<Arch>::iq4_levels(q + 16);
}

template <class Arch>
struct Unpack<Arch, BlockQ8_0> {
  static constexpr int kSub = 32;
  static constexpr bool kHasMin = false;
  static void run(const BlockQ8_0& b, std::int8_t* q, float* scale, float*) {
    std::memcpy(q, b.qs, 32);
    scale[0] = Simd<Arch>::f16(b.d);
  }
};

template <class Arch>
struct Unpack<Arch, BlockQ4_0> {
  static constexpr int kSub = 32;
  static constexpr bool kHasMin = false;
  static void run(const BlockQ4_0& b, std::int8_t* q, float* scale, float*) {
    nibbles_of_32<Arch>(b.qs, 8, q);
    scale[0] = Simd<Arch>::f16(b.d);
  }
};

template <class Arch>
struct Unpack<Arch, BlockQ4_1> {
  static constexpr int kSub = 32;
  static constexpr bool kHasMin = true;
  static void run(const BlockQ4_1& b, std::int8_t* q, float* scale, float* min) {
    nibbles_of_32<Arch>(b.qs, 0, q);
    scale[0] = Simd<Arch>::f16(b.d);
    min[0] = -Simd<Arch>::f16(b.m);
  }
};

template <class Arch>
struct Unpack<Arch, BlockQ5_0> {
  static constexpr int kSub = 32;
  static constexpr bool kHasMin = false;
  static void run(const BlockQ5_0& b, std::int8_t* q, float* scale, float*) {
    five_bits_of_32<Arch>(b.qs, b.qh, 16, q);
    scale[0] = Simd<Arch>::f16(b.d);
  }
};

template <class Arch>
struct Unpack<Arch, BlockQ5_1> {
  static constexpr int kSub = 32;
  static constexpr bool kHasMin = true;
  static void run(const BlockQ5_1& b, std::int8_t* q, float* scale, float* min) {
    five_bits_of_32<Arch>(b.qs, b.qh, 0, q);
    scale[0] = Simd<Arch>::f16(b.d);
    min[0] = -Simd<Arch>::f16(b.m);
  }
};

template <class Arch>
struct Unpack<Arch, BlockIQ4_NL> {
  static constexpr int kSub = 32;
  static constexpr bool kHasMin = false;
  static void run(const BlockIQ4_NL& b, std::int8_t* q, float* scale, float*) {
    levels_of_32<Arch>(b.qs, q);
    scale[0] = Simd<Arch>::f16(b.d);
  }
};

// Two bits of 256 quants: half n (128 elements) has 32 bytes, which hold sub-blocks 4n .. 4n + 3.
template <class Arch>
inline void two_bits_of_256(const std::uint8_t* qs, std::int8_t* q) {
  for (int n = 0; n < 2; ++n) {
    for (int s = 0; s < 4; ++s) {
      for (int r = 0; r < 32; ++r) {
        q[128 * n + 32 * s + r] = static_cast<std::int8_t>((qs[32 * n + r] >> (2 * s)) & 3);
      }
    }
  }
}

// Four bits of 256 quants: 64 elements share 32 bytes, low nibbles first.
template <class Arch>
inline void nibbles_of_256(const std::uint8_t* qs, std::int8_t* q) {
  for (int n = 0; n < 4; ++n) {
    for (int r = 0; r < 32; ++r) q[64 * n + r] = static_cast<std::int8_t>(qs[32 * n + r] & 15);
    for (int r = 0; r < 32; ++r) q[64 * n + 32 + r] = static_cast<std::int8_t>(qs[32 * n + r] >> 4);
  }
}

template <class Arch>
struct Unpack<Arch, BlockQ2_K> {
  static constexpr int kSub = 16;
  static constexpr bool kHasMin = true;
  static void run(const BlockQ2_K& b, std::int8_t* q, float* scale, float* min) {
    two_bits_of_256<Arch>(b.qs, q);
    const float d = Simd<Arch>::f16(b.d);
    const float dmin = Simd<Arch>::f16(b.dmin);
    for (int j = 0; j < 16; ++j) {
      scale[j] = d * static_cast<float>(b.scales[j] & 15);
      min[j] = dmin * static_cast<float>(b.scales[j] >> 4);
    }
  }
};

template <class Arch>
struct Unpack<Arch, BlockQ3_K> {
  static constexpr int kSub = 16;
  static constexpr bool kHasMin = false;
  static void run(const BlockQ3_K& b, std::int8_t* q, float* scale, float*) {
    two_bits_of_256<Arch>(b.qs, q);
    for (int s = 0; s < 8; ++s) {
      for (int r = 0; r < 32; ++r) {
        const int high = (b.hmask[r] >> s) & 1;
        q[32 * s + r] = static_cast<std::int8_t>(q[32 * s + r] - 4 * (1 - high));
      }
    }
    const float d = Simd<Arch>::f16(b.d);
    for (int j = 0; j < 16; ++j) scale[j] = d * static_cast<float>(b.scale(j));
  }
};

template <class Arch>
inline void k_scales(std::uint16_t d_bits, std::uint16_t dmin_bits, const std::uint8_t* packed,
                     float* scale, float* min) {
  const float d = Simd<Arch>::f16(d_bits);
  const float dmin = Simd<Arch>::f16(dmin_bits);
  for (int s = 0; s < 8; ++s) {
    scale[s] = d * static_cast<float>(k_scale(packed, s));
    min[s] = dmin * static_cast<float>(k_min(packed, s));
  }
}

template <class Arch>
struct Unpack<Arch, BlockQ4_K> {
  static constexpr int kSub = 32;
  static constexpr bool kHasMin = true;
  static void run(const BlockQ4_K& b, std::int8_t* q, float* scale, float* min) {
    nibbles_of_256<Arch>(b.qs, q);
    k_scales<Arch>(b.d, b.dmin, b.scales, scale, min);
  }
};

template <class Arch>
struct Unpack<Arch, BlockQ5_K> {
  static constexpr int kSub = 32;
  static constexpr bool kHasMin = true;
  static void run(const BlockQ5_K& b, std::int8_t* q, float* scale, float* min) {
    nibbles_of_256<Arch>(b.qs, q);
    for (int s = 0; s < 8; ++s) {
      for (int r = 0; r < 32; ++r) {
        q[32 * s + r] = static_cast<std::int8_t>(q[32 * s + r] | (((b.qh[r] >> s) & 1) << 4));
      }
    }
    k_scales<Arch>(b.d, b.dmin, b.scales, scale, min);
  }
};

template <class Arch>
struct Unpack<Arch, BlockQ6_K> {
  static constexpr int kSub = 16;
  static constexpr bool kHasMin = false;
  static void run(const BlockQ6_K& b, std::int8_t* q, float* scale, float*) {
    for (int n = 0; n < 2; ++n) {
      for (int r = 0; r < 64; ++r) {
        q[128 * n + r] = static_cast<std::int8_t>(b.ql[64 * n + r] & 15);
        q[128 * n + 64 + r] = static_cast<std::int8_t>(b.ql[64 * n + r] >> 4);
      }
      for (int s = 0; s < 4; ++s) {
        for (int r = 0; r < 32; ++r) {
          const int i = 128 * n + 32 * s + r;
          q[i] = static_cast<std::int8_t>((q[i] | (((b.qh[32 * n + r] >> (2 * s)) & 3) << 4)) - 32);
        }
      }
    }
    const float d = Simd<Arch>::f16(b.d);
    for (int j = 0; j < 16; ++j) scale[j] = d * static_cast<float>(b.scales[j]);
  }
};

template <class Arch>
struct Unpack<Arch, BlockIQ4_XS> {
  static constexpr int kSub = 32;
  static constexpr bool kHasMin = false;
  static void run(const BlockIQ4_XS& b, std::int8_t* q, float* scale, float*) {
    const float d = Simd<Arch>::f16(b.d);
    for (int s = 0; s < 8; ++s) {
      levels_of_32<Arch>(b.qs + 16 * s, q + 32 * s);
      scale[s] = d * static_cast<float>(b.scale(s));
    }
  }
};

}  // namespace qwen::cpu
