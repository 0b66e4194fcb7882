// (x_i, x_i+half) rotated by pos * inv_freq_i, half-split pairs, in place; x (n_tokens, heads,
// head_dim) FP32. One thread per (token, pair): it takes the angle once, in FP64, and rotates that
// pair of every head.
#include "backends/cuda/elementwise.h"
#include "backends/cuda/tile/rope.cuh"

namespace qwen::cuda {
namespace {

__global__ void rope(float* x, const int* pos, const float* inv_freq, int heads, int half,
                     std::int64_t n) {
  const std::int64_t thread = std::int64_t{blockIdx.x} * kElementThreads + threadIdx.x;
  if (thread >= n) return;
  const std::int64_t token = thread / half;
  const int i = static_cast<int>(thread % half);
  const float2 r = tile::rotation(inv_freq[i], pos[token]);
  float* first = x + token * heads * 2 * half + i;
  for (int h = 0; h < heads; ++h) {
    float* at = first + h * 2 * half;
    const float a = at[0];
    const float b = at[half];
    at[0] = tile::rotate_low(a, b, r);
    at[half] = tile::rotate_high(a, b, r);
  }
}

}  // namespace

void launch(const Rope& op, const Launch& on) {
  const auto half = static_cast<int>(op.x.shape[2] / 2);
  const std::int64_t n = op.x.shape[0] * half;
  launch_kernel(rope, Start::kInOrder, element_blocks(n), kElementThreads, 0, on, op.x.f32(),
                op.pos.i32(), op.inv_freq.f32(), static_cast<int>(op.x.shape[1]), half, n);
}

}  // namespace qwen::cuda
