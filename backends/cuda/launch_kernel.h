// The one way to launch a kernel.
#pragma once

#include <cuda_runtime.h>

#include "backends/cuda/check.h"
#include "backends/cuda/launch.h"

namespace qwen::cuda {

// Whether the kernel calls wait_for_inputs() (tile/reduce.cuh) and so may start early.
enum class Start { kInOrder, kMayOverlap };

template <class... Parameters, class... Arguments>
void launch_kernel(void (*kernel)(Parameters...), Start start, dim3 grid, dim3 block,
                   std::size_t shared_bytes, const Launch& on, Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;  // no rows
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = on.stream;
  config.attrs = &overlap;
  config.numAttrs = on.overlap && start == Start::kMayOverlap ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
}

}  // namespace qwen::cuda
