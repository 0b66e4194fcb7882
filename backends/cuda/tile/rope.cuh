// Rotary position embedding of one pair. The angle is taken and brought to [-pi, pi] in FP64, since
// at position 32,000 an FP32 step of the fastest angle is already 2^-9; the rest is FP32.
#pragma once

namespace qwen::cuda::tile {

// (cos, sin) of pos * inv_freq, each within 3 units of 2^-24.
__device__ inline float2 rotation(float inv_freq, int pos) {
  constexpr double kPi = 3.14159265358979323846;
  const double half_turns = static_cast<double>(inv_freq) * pos * (1.0 / kPi);
  const double reduced = half_turns - 2.0 * rint(half_turns * 0.5);
  // sin(r + rest) = sin r + rest cos r: what rounding the angle to FP32 loses.
  const auto r = static_cast<float>(reduced);
  const float rest = static_cast<float>((reduced - static_cast<double>(r)) * kPi);
  float sine, cosine;
  sincospif(r, &sine, &cosine);
  return {cosine - rest * sine, sine + rest * cosine};
}
// Element i < head_dim / 2 of a pair (a, b), and element i + head_dim / 2.
__device__ inline float rotate_low(float a, float b, float2 r) { return a * r.x - b * r.y; }
__device__ inline float rotate_high(float a, float b, float2 r) { return b * r.x + a * r.y; }

}  // namespace qwen::cuda::tile
