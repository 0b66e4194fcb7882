// Turns a CUDA status into an Error.
#pragma once

#include <cuda_runtime_api.h>

namespace qwen::cuda {

// Throws Error if `status` is not cudaSuccess: Exit::kOutOfMemory for an allocation that failed,
// else Exit::kFailed, naming the place in our source.
// (std::source_location would say it better; the clang-tidy of Debian 12 does not know it.)
void check(cudaError_t status, const char* file = __builtin_FILE(), int line = __builtin_LINE());

// Whether the launch just made was accepted. (Errors while a kernel runs show later, or at once
// with synchronised ops.)
inline void check_launch(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  check(cudaGetLastError(), file, line);
}

}  // namespace qwen::cuda
