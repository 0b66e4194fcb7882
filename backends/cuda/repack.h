// Moving quantised weights between the file's layout and the planes of planar.h, on the device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace qwen::cuda {

// Spreads blocks [first, first + n) of a tensor of `n_blocks` blocks, which lie at `blocks` as in
// the file, over the planes at `planes`. `dtype` has planes.
void to_planes(std::byte* planes, const std::byte* blocks, DType dtype, std::int64_t n_blocks,
               std::int64_t first, std::int64_t n, cudaStream_t stream);
// The way back.
void from_planes(std::byte* blocks, const std::byte* planes, DType dtype, std::int64_t n_blocks,
                 std::int64_t first, std::int64_t n, cudaStream_t stream);

// Whether this build has machine code for the current device: asks for a kernel of this file.
bool has_device_code();

}  // namespace qwen::cuda
