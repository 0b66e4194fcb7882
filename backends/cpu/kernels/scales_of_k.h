// Scales and minima of blocks of eight sub-blocks of 32 elements: six bits each, in 12 bytes.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace qwen::cpu {

// Arch names the instruction set that this copy is compiled for (simd.h says why).
template <class Arch, class Block>
struct ScalesOfK {
  static __m256 scales(const Block& b) { return eight(word(b, 0), word(b, 0), word(b, 8), b.d); }
  static __m256 mins(const Block& b) {
    return eight(word(b, 4), word(b, 4), word(b, 8) >> 4, b.dmin);
  }

 private:
  static std::uint32_t word(const Block& b, int at) {
    std::uint32_t w;
    std::memcpy(&w, b.scales + at, 4);
    return w;
  }
  // Four of six bits; four more of four bits, with two more above the six.
  static __m256 eight(std::uint32_t six, std::uint32_t above, std::uint32_t four,
                      std::uint16_t factor) {
    const std::uint32_t low = six & 0x3f3f3f3fu;
    const std::uint32_t high = (four & 0x0f0f0f0fu) | (above >> 2 & 0x30303030u);
    const __m128i bytes =
        _mm_cvtsi64_si128(static_cast<long long>(low | std::uint64_t{high} << 32));
    const __m256 integers = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
    return _mm256_mul_ps(integers, _mm256_set1_ps(_cvtsh_ss(factor)));
  }
};

}  // namespace qwen::cpu
