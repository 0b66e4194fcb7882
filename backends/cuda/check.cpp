#include "backends/cuda/check.h"

#include <string>
#include <string_view>

#include "core/error.h"

namespace qwen::cuda {

void check(cudaError_t status, const char* file, int line) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // so that an error that is none of ours is not reported twice
  const bool memory = status == cudaErrorMemoryAllocation;
  std::string_view place = file;
  if (const auto root = place.rfind("backends/"); root != std::string_view::npos) {
    place.remove_prefix(root);
  }
  throw Error({.exit = memory ? Exit::kOutOfMemory : Exit::kFailed,
               .code = memory ? "out_of_memory" : "cuda_error",
               .message = std::string("CUDA: ") + cudaGetErrorString(status) + " (" +
                          cudaGetErrorName(status) + ", " + std::string(place) + ":" +
                          std::to_string(line) + ")",
               .hint = memory ? "a smaller context (-c) needs less" : "--sync names the op"});
}

}  // namespace qwen::cuda
