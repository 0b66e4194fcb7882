// The root mean square of a row, for the norm and for what fuses it.
#pragma once

#include <cstdint>

#include "backends/cuda/tile/reduce.cuh"

namespace qwen::cuda::tile {

// 1 / sqrt(mean(x^2) + eps) of `dim` elements whose squares add up to `squares`.
__device__ inline float inverse_rms(float squares, int dim, float eps) {
  return 1.0f / sqrtf(squares / static_cast<float>(dim) + eps);
}

// The same of x (dim) by a block of kThreads, in every thread of it: a thread's elements in order,
// then the lanes, then the warps.
template <int kThreads>
__device__ inline float block_inverse_rms(const float* x, int dim, float eps) {
  __shared__ float squares[kThreads / 32];
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < dim; i += kThreads) sum += x[i] * x[i];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) squares[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0;
  for (const float s : squares) sum += s;
  return inverse_rms(sum, dim, eps);
}

}  // namespace qwen::cuda::tile
