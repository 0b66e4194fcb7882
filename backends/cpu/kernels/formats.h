// Every weight format as a source of float vectors, and the two loops over it: decode and gemv.
//
// A format offers visit<streamed>(row, n, f): for the first `n` elements of a row (whole groups
// only) it calls f(c, w0, w1) with the elements [c, c + lanes) and [c + lanes, c + 2 * lanes), in
// order; `streamed` if what follows in memory is used next.
// Rows of quantised formats are whole blocks; the float formats also offer scalar(row, c), element
// c by itself, for what is left after the last whole group.
#pragma once

#include "backends/cpu/kernels/kernels.h"
#include "backends/cpu/kernels/prefetch.h"
#include "backends/cpu/kernels/unpack.h"

namespace qwen::cpu {

// How far ahead of the loads the rows are asked for. Not into the first cache: there, what is asked
// for takes the places of what the loads wait for. Measured (F16 of 896 columns, 2 threads, GB/s,
// Zen 4 and Xeon of Sapphire Rapids' kind): without 32 and 15, 6 KiB ahead into the first cache 25
// and 22, so 31 and 26.
constexpr std::size_t kPrefetchBytes = 16384;

template <class Arch>
struct F32Format {
  using V = typename Simd<Arch>::V;
  using T = float;
  static V load(const T* p) { return V::load_unaligned(p); }
  static float convert(T value) { return value; }
};

template <class Arch>
struct F16Format {
  using V = typename Simd<Arch>::V;
  using T = std::uint16_t;
  static V load(const T* p) { return Simd<Arch>::load_f16(p); }
  static float convert(T value) { return Simd<Arch>::f16(value); }
};

template <class Arch>
struct BF16Format {
  using V = typename Simd<Arch>::V;
  using T = std::uint16_t;
  static V load(const T* p) { return Simd<Arch>::load_bf16(p); }
  static float convert(T value) { return bf16_to_f32(value); }
};

template <class Arch, class Element>
struct FloatFormat {
  static constexpr std::int64_t kLanes = Simd<Arch>::kLanes;
  static constexpr std::int64_t kGroup = 2 * kLanes;
  static constexpr bool kHasTail = true;
  using T = typename Element::T;

  template <bool streamed, class F>
  static void visit(const std::byte* row, std::int64_t n, F f) {
    const T* p = reinterpret_cast<const T*>(row);
    for (std::int64_t c = 0; c < n; c += kGroup) {
      if (streamed) prefetch_stream<Cache::kThird, kPrefetchBytes>(p + c, kGroup * sizeof(T));
      f(c, Element::load(p + c), Element::load(p + c + kLanes));
    }
  }
  static float scalar(const std::byte* row, std::int64_t c) {
    return Element::convert(reinterpret_cast<const T*>(row)[c]);
  }
};

template <class Arch, class Block>
struct BlockFormat {
  using V = typename Simd<Arch>::V;
  using U = Unpack<Arch, Block>;
  static constexpr std::int64_t kLanes = Simd<Arch>::kLanes;
  static constexpr std::int64_t kGroup = Block::kElements;
  static constexpr bool kHasTail = false;

  template <bool streamed, class F>
  static void visit(const std::byte* row, std::int64_t n, F f) {
    const Block* block = reinterpret_cast<const Block*>(row);
    for (std::int64_t c = 0; c < n; c += kGroup, ++block) {
      if (streamed) prefetch<Cache::kThird>(block, kPrefetchBytes, sizeof(Block));
      alignas(64) std::int8_t q[kGroup];
      float scale[kGroup / U::kSub];
      float min[kGroup / U::kSub];
      U::run(*block, q, scale, min);
      const auto vector = [&](std::int64_t i) {
        const V w = Simd<Arch>::load_i8(q + i) * V(scale[i / U::kSub]);
        if constexpr (U::kHasMin) {
          return w - V(min[i / U::kSub]);
        } else {
          return w;
        }
      };
#pragma GCC unroll 8
      for (std::int64_t i = 0; i < kGroup; i += 2 * kLanes) f(c + i, vector(i), vector(i + kLanes));
    }
  }
};

template <class Arch, class Format>
void decode_row(const std::byte* src, std::int64_t n, float* out) {
  const std::int64_t whole = n / Format::kGroup * Format::kGroup;
  Format::template visit<false>(src, whole, [&](std::int64_t c, auto w0, auto w1) {
    w0.store_unaligned(out + c);
    w1.store_unaligned(out + c + Simd<Arch>::kLanes);
  });
  if constexpr (Format::kHasTail) {
    for (std::int64_t c = whole; c < n; ++c) out[c] = Format::scalar(src, c);
  }
}

// kTokens rows of x against rows of the weight: each decoded vector is used for all of them. Two
// chains of sums per token hide the latency of the fused multiply-add.
template <class Arch, class Format, int kTokens>
void gemv_rows(const GemvArgs& g, std::int64_t first_token) {
  using V = typename Simd<Arch>::V;
  const float* x = g.x + first_token * g.ldx;
  const std::int64_t whole = g.n_cols / Format::kGroup * Format::kGroup;
  for (std::int64_t r = g.row_begin; r < g.row_end; ++r) {
    const std::byte* row = g.weight + static_cast<std::size_t>(r) * g.row_bytes;
    V even[kTokens];
    V odd[kTokens];
    for (int t = 0; t < kTokens; ++t) even[t] = odd[t] = V(0.0f);
    Format::template visit<true>(row, whole, [&](std::int64_t c, V w0, V w1) {
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        const float* xt = x + t * g.ldx + c;
        even[t] = Simd<Arch>::fma(w0, V::load_unaligned(xt), even[t]);
        odd[t] = Simd<Arch>::fma(w1, V::load_unaligned(xt + Simd<Arch>::kLanes), odd[t]);
      }
    });
    for (int t = 0; t < kTokens; ++t) {
      float sum = xsimd::hadd(even[t] + odd[t]);
      if constexpr (Format::kHasTail) {
        for (std::int64_t c = whole; c < g.n_cols; ++c) {
          sum += Format::scalar(row, c) * x[t * g.ldx + c];
        }
      }
      g.y[(first_token + t) * g.ldy + r] = sum;
    }
  }
}

template <class Arch, class Format>
void gemv(const GemvArgs& g) {
  std::int64_t t = 0;
  for (; t + 4 <= g.n_tokens; t += 4) gemv_rows<Arch, Format, 4>(g, t);
  switch (g.n_tokens - t) {
    case 3:
      return gemv_rows<Arch, Format, 3>(g, t);
    case 2:
      return gemv_rows<Arch, Format, 2>(g, t);
    case 1:
      return gemv_rows<Arch, Format, 1>(g, t);
    default:
      return;
  }
}

}  // namespace qwen::cpu
