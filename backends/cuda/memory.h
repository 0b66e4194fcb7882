// Device and pinned host memory, streams and events: one owner each.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <utility>

#include "core/backend.h"

namespace qwen::cuda {

// All allocations of a backend go through one of these: it counts what is alive, and can be told to
// fail. Throws Error (Exit::kOutOfMemory).
class Allocator {
 public:
  // `fail_at`: the allocation with this number (from 0) fails, and all after it. -1: none.
  explicit Allocator(int fail_at) : fail_at_(fail_at), alive_(std::make_shared<int>(0)) {}

  Buffer device(std::size_t bytes);
  Buffer pinned(std::size_t bytes);
  int alive() const { return *alive_; }

 private:
  Buffer make(std::size_t bytes, const char* what, cudaError_t (*allocate)(void**, std::size_t),
              cudaError_t (*release)(void*));

  int fail_at_;
  int made_ = 0;
  std::shared_ptr<int> alive_;  // buffers may outlive the allocator
};

class Stream {
 public:
  Stream();
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event();
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  operator cudaEvent_t() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace qwen::cuda
