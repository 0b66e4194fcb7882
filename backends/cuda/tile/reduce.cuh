// Reductions in a fixed order, and the hand-over between kernels that are launched to overlap.
#pragma once

#include <cuda_runtime.h>

namespace qwen::cuda::tile {

constexpr unsigned kAllLanes = 0xffffffffu;

// The sum over the lanes of a warp, in every lane.
__device__ inline float warp_sum(float v) {
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(kAllLanes, v, offset);
  return v;
}

// With programmatic dependent launch a kernel may start before the one ahead of it has ended. What
// it does before this call must not touch memory that a kernel writes; weights it may load. A no-op
// for an ordinary launch. Every kernel that can be launched so calls it once in every thread. (The
// exception: Company in gemv.cuh.)
__device__ inline void wait_for_inputs() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the next kernel start. Safe at any place if that waits for the end of this one before it
// reads; one that does not (Company in gemv.cuh) is let start when its inputs are there.
__device__ inline void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

}  // namespace qwen::cuda::tile
