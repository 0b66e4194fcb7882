// Turns a CUDA status into an Error.
#pragma once

#include <cuda_runtime_api.h>

#include <source_location>

namespace qwen::cuda {

// Throws Error if `status` is not cudaSuccess: Exit::kOutOfMemory for an allocation that failed,
// else Exit::kFailed, naming the place in our source.
void check(cudaError_t status, std::source_location where = std::source_location::current());

// Whether the launch just made was accepted. (Errors while a kernel runs show later, or at once
// with synchronised ops.)
inline void check_launch(std::source_location where = std::source_location::current()) {
  check(cudaGetLastError(), where);
}

}  // namespace qwen::cuda
