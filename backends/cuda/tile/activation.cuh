// silu(z) = z / (1 + exp(-z)), in FP32 with the accurate exponential: good to a few units.
#pragma once

namespace qwen::cuda::tile {

__device__ inline float silu(float z) { return z / (1.0f + expf(-z)); }

}  // namespace qwen::cuda::tile
