// Transposition in 512-bit registers.
#pragma once

#include <immintrin.h>

namespace qwen::cpu {

// In each 128-bit lane, dword j of v[i] and dword i of v[j] change places, for i, j < 4.
template <class Arch>
inline void transpose_4x4_lanes(__m512i* v) {
  const __m512i low0 = _mm512_unpacklo_epi32(v[0], v[1]);
  const __m512i high0 = _mm512_unpackhi_epi32(v[0], v[1]);
  const __m512i low2 = _mm512_unpacklo_epi32(v[2], v[3]);
  const __m512i high2 = _mm512_unpackhi_epi32(v[2], v[3]);
  v[0] = _mm512_unpacklo_epi64(low0, low2);
  v[1] = _mm512_unpackhi_epi64(low0, low2);
  v[2] = _mm512_unpacklo_epi64(high0, high2);
  v[3] = _mm512_unpackhi_epi64(high0, high2);
}

// 16 rows of 16 dwords become 16 columns of them.
template <class Arch>
inline void transpose_16x16(__m512i (&v)[16]) {
  __m512i a[16];
  // First v[4 q + c] becomes column c of each 128-bit lane, of rows 4 q to 4 q + 3.
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) transpose_4x4_lanes<Arch>(v + i);
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i low = _mm512_shuffle_i32x4(v[c], v[4 + c], 0x88);   // lanes 0, 2 of both
    const __m512i high = _mm512_shuffle_i32x4(v[c], v[4 + c], 0xdd);  // lanes 1, 3
    const __m512i low2 = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0x88);
    const __m512i high2 = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0xdd);
    a[c] = _mm512_shuffle_i32x4(low, low2, 0x88);
    a[8 + c] = _mm512_shuffle_i32x4(low, low2, 0xdd);
    a[4 + c] = _mm512_shuffle_i32x4(high, high2, 0x88);
    a[12 + c] = _mm512_shuffle_i32x4(high, high2, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) v[i] = a[i];
}

}  // namespace qwen::cpu
