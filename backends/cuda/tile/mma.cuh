// Tensor-core tiles with FP32-grade operands.
//
// An FP32 number x is carried as two halves: hi = f16(x * kScale) and lo = f16((x * kScale - hi) *
// kLoScale). Both keep 11 bits, so hi + lo / kLoScale is x * kScale within 2^-22 of it, or within
// 2^-36 absolutely. kScale = 2^-6 lets |x| reach 4 million before hi overflows.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace qwen::cuda::tile {

inline constexpr float kScale = 0x1p-6f;
inline constexpr float kLoScale = 0x1p11f;

struct HiLo {
  __half hi, lo;
};

__device__ inline HiLo split(float x) {
  const float scaled = x * kScale;
  const __half hi = __float2half_rn(scaled);
  return {hi, __float2half_rn((scaled - __half2float(hi)) * kLoScale)};
}

__device__ inline std::uint32_t pack(__half a, __half b) {
  return static_cast<std::uint32_t>(__half_as_ushort(a)) |
         static_cast<std::uint32_t>(__half_as_ushort(b)) << 16;
}

// c (16, 8) += a (16, 16) * b (16, 8), one warp. Lane 4 i + t holds of a: a0 (i, 2t..), a1 (i + 8,
// 2t..), a2 (i, 2t + 8..), a3 (i + 8, 2t + 8..); of b: b0 (2t.., i), b1 (2t + 8.., i); of c: c0, c1
// (i, 2t..), c2, c3 (i + 8, 2t..). (PTX ISA, mma.m16n8k16)
__device__ inline void mma(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                           std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Four unsigned bytes minus `bias` as halves, exact: 0x6400 + byte is 1024 + byte as F16.
__device__ inline uint2 bytes_to_halves(std::uint32_t bytes, int bias) {
  const std::uint32_t low = __byte_perm(bytes, 0x64646464u, 0x4140);
  const std::uint32_t high = __byte_perm(bytes, 0x64646464u, 0x4342);
  const __half2 offset = __float2half2_rn(static_cast<float>(1024 + bias));
  const __half2 a = __hsub2(*reinterpret_cast<const __half2*>(&low), offset);
  const __half2 b = __hsub2(*reinterpret_cast<const __half2*>(&high), offset);
  return {*reinterpret_cast<const std::uint32_t*>(&a), *reinterpret_cast<const std::uint32_t*>(&b)};
}

}  // namespace qwen::cuda::tile
