#include "backends/cuda/memory.h"

#include <algorithm>
#include <string>

#include "backends/cuda/check.h"
#include "core/error.h"

namespace qwen::cuda {
namespace {

[[noreturn]] void out_of_memory(std::size_t bytes, const char* what) {
  std::size_t free = 0;
  std::size_t total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) cudaGetLastError();
  throw Error({.exit = Exit::kOutOfMemory,
               .code = "out_of_memory",
               .message = "cannot allocate " + std::to_string(bytes >> 20) + " MiB of " + what +
                          "; " + std::to_string(free >> 20) + " MiB of GPU memory are free",
               .hint = "a smaller context (-c) needs less; --device cpu uses the host's memory"});
}

}  // namespace

Buffer Allocator::make(std::size_t bytes, const char* what,
                       cudaError_t (*allocate)(void**, std::size_t),
                       cudaError_t (*release)(void*)) {
  if (fail_at_ >= 0 && made_ >= fail_at_) out_of_memory(bytes, what);
  ++made_;
  void* memory = nullptr;
  if (allocate(&memory, std::max<std::size_t>(bytes, 1)) != cudaSuccess) {
    cudaGetLastError();
    out_of_memory(bytes, what);
  }
  ++*alive_;
  return Buffer(static_cast<std::byte*>(memory), [alive = alive_, release](std::byte* p) {
    release(p);
    --*alive;
  });
}

Buffer Allocator::device(std::size_t bytes) {
  return make(bytes, "GPU memory", cudaMalloc, cudaFree);
}

Buffer Allocator::pinned(std::size_t bytes) {
  return make(bytes, "pinned host memory", cudaMallocHost, cudaFreeHost);
}

Stream::Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }

Event::Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }

}  // namespace qwen::cuda
