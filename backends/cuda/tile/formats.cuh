// Decoding of quantised weights in their planar layout (planar.h), by chunks of 32 elements. Four
// lanes share a chunk: lane t of them holds elements 4t..4t+3 (`low`) and 16+4t..16+4t+3 (`high`)
// as unsigned bytes, and the chunk's scale: value = d * (byte - kBias) + m, exactly as value() of
// core/blocks.h. `g` is the index of a chunk in its tensor: row * (in_dim / 32) + chunk.
// K-quants with scales per 16 elements (kPerHalf) have one scale for `low` and one for `high`.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "core/blocks.h"

namespace qwen::cuda::tile {

struct Quads {
  std::uint32_t low, high;
};
// Of the low and of the high half of a chunk; equal unless kPerHalf.
struct Scales {
  float d_low, m_low, d_high, m_high;
};

__device__ inline std::uint32_t load32(const std::byte* p) {
  return __ldg(reinterpret_cast<const std::uint32_t*>(p));
}
__device__ inline uint2 load64(const std::byte* p) {
  return __ldg(reinterpret_cast<const uint2*>(p));
}
__device__ inline std::uint16_t load16(const std::byte* p) {
  return __ldg(reinterpret_cast<const unsigned short*>(p));
}
__device__ inline std::uint8_t load8(const std::byte* p) {
  return __ldg(reinterpret_cast<const unsigned char*>(p));
}
__device__ inline float half_bits(std::uint32_t bits) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}

constexpr std::uint32_t kNibbles = 0x0f0f0f0fu;
constexpr std::uint32_t kPairs = 0x03030303u;
constexpr std::uint32_t kOnes = 0x01010101u;

// The low four bits of `bits`, one per byte.
__device__ inline std::uint32_t spread4(std::uint32_t bits) {
  return ((bits & 15u) * 0x00204081u) & kOnes;
}

// The levels of the non-linear formats plus 128, for four indices of one byte each.
__device__ inline std::uint32_t iq4_bytes(std::uint32_t indices) {
  // Levels -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113, plus 128, four to a word.
  constexpr std::uint32_t kLevels[4] = {0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u};
  std::uint32_t selector = (indices | indices >> 4) & 0x00ff00ffu;
  selector = (selector | selector >> 8) & 0x7777u;
  const std::uint32_t small = __byte_perm(kLevels[0], kLevels[1], selector);
  const std::uint32_t large = __byte_perm(kLevels[2], kLevels[3], selector);
  const std::uint32_t is_large = ((indices >> 3) & kOnes) * 0xffu;
  return (small & ~is_large) | (large & is_large);
}

// Byte `i` of three words.
__device__ inline int byte_of(const std::uint32_t (&words)[3], int i) {
  const std::uint32_t word = i < 4 ? words[0] : i < 8 ? words[1] : words[2];
  return static_cast<int>((word >> (8 * (i & 3))) & 0xffu);
}
// k_scale() and k_min() of core/blocks.h on words.
__device__ inline int k_scale_of(const std::uint32_t (&w)[3], int s) {
  return s < 4 ? byte_of(w, s) & 63 : (byte_of(w, 4 + s) & 15) | (byte_of(w, s - 4) >> 6) << 4;
}
__device__ inline int k_min_of(const std::uint32_t (&w)[3], int s) {
  return s < 4 ? byte_of(w, 4 + s) & 63 : byte_of(w, 4 + s) >> 4 | (byte_of(w, s) >> 6) << 4;
}
__device__ inline void load_words(std::uint32_t (&w)[3], const std::byte* p) {
  w[0] = load32(p);
  w[1] = load32(p + 4);
  w[2] = load32(p + 8);
}

struct Q8_0 {
  static constexpr int kBias = 128;
  static constexpr bool kHasMin = false, kPerHalf = false;
  static constexpr int kBlock = 32;
  struct Raw {
    std::uint32_t low, high;
    std::uint16_t d;
  };
  __device__ static Raw load(const std::byte* w, std::int64_t n_blocks, std::int64_t g, int t) {
    const std::byte* q = w + g * 32 + 4 * t;
    return {load32(q), load32(q + 16), load16(w + n_blocks * 32 + g * 2)};
  }
  __device__ static Quads quads(const Raw& r, int, int) {
    return {r.low ^ 0x80808080u, r.high ^ 0x80808080u};
  }
  __device__ static Scales scales(const Raw& r, int) {
    const float d = half_bits(r.d);
    return {d, 0, d, 0};
  }
};

struct Q4_0 {
  static constexpr int kBias = 8;
  static constexpr bool kHasMin = false, kPerHalf = false;
  static constexpr int kBlock = 32;
  struct Raw {
    std::uint32_t q;
    std::uint16_t d;
  };
  __device__ static Raw load(const std::byte* w, std::int64_t n_blocks, std::int64_t g, int t) {
    return {load32(w + g * 16 + 4 * t), load16(w + n_blocks * 16 + g * 2)};
  }
  __device__ static Quads quads(const Raw& r, int, int) {
    return {r.q & kNibbles, (r.q >> 4) & kNibbles};
  }
  __device__ static Scales scales(const Raw& r, int) {
    const float d = half_bits(r.d);
    return {d, 0, d, 0};
  }
};

struct IQ4_NL : Q4_0 {
  static constexpr int kBias = 128;
  __device__ static Quads quads(const Raw& r, int, int) {
    return {iq4_bytes(r.q & kNibbles), iq4_bytes((r.q >> 4) & kNibbles)};
  }
};

struct Q4_1 {
  static constexpr int kBias = 0;
  static constexpr bool kHasMin = true, kPerHalf = false;
  static constexpr int kBlock = 32;
  struct Raw {
    std::uint32_t q, dm;
  };
  __device__ static Raw load(const std::byte* w, std::int64_t n_blocks, std::int64_t g, int t) {
    return {load32(w + g * 16 + 4 * t), load32(w + n_blocks * 16 + g * 4)};
  }
  __device__ static Quads quads(const Raw& r, int, int) {
    return {r.q & kNibbles, (r.q >> 4) & kNibbles};
  }
  __device__ static Scales scales(const Raw& r, int) {
    const float d = half_bits(r.dm);
    const float m = half_bits(r.dm >> 16);
    return {d, m, d, m};
  }
};

struct Q5_0 {
  static constexpr int kBias = 16;
  static constexpr bool kHasMin = false, kPerHalf = false;
  static constexpr int kBlock = 32;
  struct Raw {
    std::uint32_t q, h;
    std::uint16_t d;
  };
  __device__ static Raw load(const std::byte* w, std::int64_t n_blocks, std::int64_t g, int t) {
    return {load32(w + g * 16 + 4 * t), load32(w + n_blocks * 16 + g * 4),
            load16(w + n_blocks * 20 + g * 2)};
  }
  __device__ static Quads quads(const Raw& r, int, int t) {
    return {(r.q & kNibbles) | spread4(r.h >> (4 * t)) << 4,
            ((r.q >> 4) & kNibbles) | spread4(r.h >> (16 + 4 * t)) << 4};
  }
  __device__ static Scales scales(const Raw& r, int) {
    const float d = half_bits(r.d);
    return {d, 0, d, 0};
  }
};

struct Q5_1 {
  static constexpr int kBias = 0;
  static constexpr bool kHasMin = true, kPerHalf = false;
  static constexpr int kBlock = 32;
  struct Raw {
    std::uint32_t q, h, dm;
  };
  __device__ static Raw load(const std::byte* w, std::int64_t n_blocks, std::int64_t g, int t) {
    return {load32(w + g * 16 + 4 * t), load32(w + n_blocks * 16 + g * 4),
            load32(w + n_blocks * 20 + g * 4)};
  }
  __device__ static Quads quads(const Raw& r, int, int t) {
    return {(r.q & kNibbles) | spread4(r.h >> (4 * t)) << 4,
            ((r.q >> 4) & kNibbles) | spread4(r.h >> (16 + 4 * t)) << 4};
  }
  __device__ static Scales scales(const Raw& r, int) {
    const float d = half_bits(r.dm);
    const float m = half_bits(r.dm >> 16);
    return {d, m, d, m};
  }
};

// The K-quants: a block is 8 chunks, s = g % 8 is the chunk within it.

struct Q4_K {
  static constexpr int kBias = 0;
  static constexpr bool kHasMin = true, kPerHalf = false;
  static constexpr int kBlock = 256;
  struct Raw {
    std::uint32_t low, high, dm, w[3];
  };
  __device__ static Raw load(const std::byte* w, std::int64_t n_blocks, std::int64_t g, int t) {
    const std::int64_t b = g / 8;
    const std::byte* q = w + b * 128 + 32 * (g % 8 / 2) + 4 * t;
    Raw r{load32(q), load32(q + 16), load32(w + n_blocks * 140 + b * 4), {}};
    load_words(r.w, w + n_blocks * 128 + b * 12);
    return r;
  }
  __device__ static Quads quads(const Raw& r, int s, int) {
    const int shift = 4 * (s & 1);
    return {(r.low >> shift) & kNibbles, (r.high >> shift) & kNibbles};
  }
  __device__ static Scales scales(const Raw& r, int s) {
    const float d = half_bits(r.dm) * static_cast<float>(k_scale_of(r.w, s));
    const float m = -(half_bits(r.dm >> 16) * static_cast<float>(k_min_of(r.w, s)));
    return {d, m, d, m};
  }
};

struct Q5_K {
  static constexpr int kBias = 0;
  static constexpr bool kHasMin = true, kPerHalf = false;
  static constexpr int kBlock = 256;
  struct Raw {
    std::uint32_t low, high, low_h, high_h, dm, w[3];
  };
  __device__ static Raw load(const std::byte* w, std::int64_t n_blocks, std::int64_t g, int t) {
    const std::int64_t b = g / 8;
    const std::byte* q = w + b * 128 + 32 * (g % 8 / 2) + 4 * t;
    const std::byte* h = w + n_blocks * 128 + b * 32 + 4 * t;
    Raw r{load32(q), load32(q + 16), load32(h), load32(h + 16), load32(w + n_blocks * 172 + b * 4),
          {}};
    load_words(r.w, w + n_blocks * 160 + b * 12);
    return r;
  }
  __device__ static Quads quads(const Raw& r, int s, int) {
    const int shift = 4 * (s & 1);
    return {((r.low >> shift) & kNibbles) | ((r.low_h >> s) & kOnes) << 4,
            ((r.high >> shift) & kNibbles) | ((r.high_h >> s) & kOnes) << 4};
  }
  __device__ static Scales scales(const Raw& r, int s) {
    const float d = half_bits(r.dm) * static_cast<float>(k_scale_of(r.w, s));
    const float m = -(half_bits(r.dm >> 16) * static_cast<float>(k_min_of(r.w, s)));
    return {d, m, d, m};
  }
};

struct Q6_K {
  static constexpr int kBias = 32;
  static constexpr bool kHasMin = false, kPerHalf = true;
  static constexpr int kBlock = 256;
  struct Raw {
    std::uint32_t low, high, low_h, high_h;
    std::uint16_t d, scales;
  };
  __device__ static Raw load(const std::byte* w, std::int64_t n_blocks, std::int64_t g, int t) {
    const std::int64_t b = g / 8;
    const int s = static_cast<int>(g % 8);
    const std::byte* q = w + b * 128 + 64 * (s / 4) + 32 * (s % 2) + 4 * t;
    const std::byte* h = w + n_blocks * 128 + b * 64 + 32 * (s / 4) + 4 * t;
    return {load32(q),
            load32(q + 16),
            load32(h),
            load32(h + 16),
            load16(w + n_blocks * 208 + b * 2),
            load16(w + n_blocks * 192 + b * 16 + 2 * s)};
  }
  __device__ static Quads quads(const Raw& r, int s, int) {
    const int low = 4 * (s / 2 % 2);
    const int high = 2 * (s % 4);
    return {((r.low >> low) & kNibbles) | ((r.low_h >> high) & kPairs) << 4,
            ((r.high >> low) & kNibbles) | ((r.high_h >> high) & kPairs) << 4};
  }
  __device__ static Scales scales(const Raw& r, int) {
    const float d = half_bits(r.d);
    return {d * static_cast<float>(static_cast<std::int8_t>(r.scales & 0xff)), 0,
            d * static_cast<float>(static_cast<std::int8_t>(r.scales >> 8)), 0};
  }
};

struct Q3_K {
  static constexpr int kBias = 4;
  static constexpr bool kHasMin = false, kPerHalf = true;
  static constexpr int kBlock = 256;
  struct Raw {
    std::uint32_t low, high, low_h, high_h, w[3];
    std::uint16_t d;
  };
  __device__ static Raw load(const std::byte* w, std::int64_t n_blocks, std::int64_t g, int t) {
    const std::int64_t b = g / 8;
    const int s = static_cast<int>(g % 8);
    const std::byte* q = w + b * 64 + 32 * (s / 4) + 4 * t;
    const std::byte* h = w + n_blocks * 64 + b * 32 + 4 * t;
    Raw r{load32(q), load32(q + 16),
          load32(h), load32(h + 16),
          {},        load16(w + n_blocks * 108 + b * 2)};
    load_words(r.w, w + n_blocks * 96 + b * 12);
    return r;
  }
  __device__ static Quads quads(const Raw& r, int s, int) {
    const int shift = 2 * (s % 4);
    return {((r.low >> shift) & kPairs) | ((r.low_h >> s) & kOnes) << 2,
            ((r.high >> shift) & kPairs) | ((r.high_h >> s) & kOnes) << 2};
  }
  // BlockQ3_K::scale()
  __device__ static float scale(const Raw& r, int j) {
    const int low = (byte_of(r.w, j % 8) >> (4 * (j / 8))) & 15;
    const int high = (byte_of(r.w, 8 + j % 4) >> (2 * (j / 4))) & 3;
    return half_bits(r.d) * static_cast<float>((low | high << 4) - 32);
  }
  __device__ static Scales scales(const Raw& r, int s) {
    return {scale(r, 2 * s), 0, scale(r, 2 * s + 1), 0};
  }
};

struct Q2_K {
  static constexpr int kBias = 0;
  static constexpr bool kHasMin = true, kPerHalf = true;
  static constexpr int kBlock = 256;
  struct Raw {
    std::uint32_t low, high, dm;
    std::uint16_t scales;
  };
  __device__ static Raw load(const std::byte* w, std::int64_t n_blocks, std::int64_t g, int t) {
    const std::int64_t b = g / 8;
    const int s = static_cast<int>(g % 8);
    const std::byte* q = w + b * 64 + 32 * (s / 4) + 4 * t;
    return {load32(q), load32(q + 16), load32(w + n_blocks * 80 + b * 4),
            load16(w + n_blocks * 64 + b * 16 + 2 * s)};
  }
  __device__ static Quads quads(const Raw& r, int s, int) {
    const int shift = 2 * (s % 4);
    return {(r.low >> shift) & kPairs, (r.high >> shift) & kPairs};
  }
  __device__ static Scales scales(const Raw& r, int) {
    const float d = half_bits(r.dm);
    const float m = -half_bits(r.dm >> 16);
    const int low = r.scales & 0xff;
    const int high = r.scales >> 8;
    return {d * static_cast<float>(low & 15), m * static_cast<float>(low >> 4),
            d * static_cast<float>(high & 15), m * static_cast<float>(high >> 4)};
  }
};

struct IQ4_XS {
  static constexpr int kBias = 128;
  static constexpr bool kHasMin = false, kPerHalf = false;
  static constexpr int kBlock = 256;
  struct Raw {
    std::uint32_t q;
    uint2 head;  // d, scales_high, scales_low
  };
  __device__ static Raw load(const std::byte* w, std::int64_t n_blocks, std::int64_t g, int t) {
    return {load32(w + g * 16 + 4 * t), load64(w + n_blocks * 128 + g / 8 * 8)};
  }
  __device__ static Quads quads(const Raw& r, int, int) {
    return {iq4_bytes(r.q & kNibbles), iq4_bytes((r.q >> 4) & kNibbles)};
  }
  __device__ static Scales scales(const Raw& r, int s) {
    const int low = static_cast<int>(r.head.y >> (8 * (s / 2) + 4 * (s % 2))) & 15;
    const int high = static_cast<int>(r.head.x >> (16 + 2 * s)) & 3;
    const float d = half_bits(r.head.x) * static_cast<float>((low | high << 4) - 32);
    return {d, 0, d, 0};
  }
};

// The eight values of lane t's part of a chunk, exact: elements 4t.. and 16+4t...
template <class Format>
__device__ inline void decode_chunk(const typename Format::Raw& raw, int s, int t, float (&low)[4],
                                    float (&high)[4]) {
  const Quads q = Format::quads(raw, s, t);
  const Scales c = Format::scales(raw, s);
  for (int i = 0; i < 4; ++i) {
    const int a = static_cast<int>((q.low >> (8 * i)) & 0xffu) - Format::kBias;
    const int b = static_cast<int>((q.high >> (8 * i)) & 0xffu) - Format::kBias;
    low[i] = c.d_low * static_cast<float>(a) + c.m_low;
    high[i] = c.d_high * static_cast<float>(b) + c.m_high;
  }
}

}  // namespace qwen::cuda::tile
