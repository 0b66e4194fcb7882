// Arena: hands out tensors from one block of memory, one after the other. All scratch of a step
// comes from here, so that nothing is allocated after a session is built.
#pragma once

#include <initializer_list>

#include "core/error.h"
#include "core/tensor.h"

namespace qwen {

class Arena {
 public:
  static constexpr std::size_t kAlignment = 64;  // a cache line, and the widest vector

  // Over memory that the arena does not own.
  Arena(std::byte* memory, std::size_t capacity) : memory_(memory), capacity_(capacity) {}

  // An arena of addresses that must not be touched: it finds out how much a step needs.
  static Arena measuring() { return Arena(reinterpret_cast<std::byte*>(kAlignment), SIZE_MAX / 2); }

  Tensor take(DType dtype, std::initializer_list<std::int64_t> dims) {
    Tensor t(memory_ + used_, dtype, dims);
    const std::size_t bytes = (t.bytes() + kAlignment - 1) / kAlignment * kAlignment;
    if (bytes > capacity_ - used_) {
      throw Error({.exit = Exit::kOutOfMemory,
                   .code = "arena_full",
                   .message = "a step needs more scratch memory than the session has set aside"});
    }
    used_ += bytes;
    return t;
  }

  // Everything handed out is free again.
  void reset() { used_ = 0; }
  std::size_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::size_t capacity_;
  std::size_t used_ = 0;
};

}  // namespace qwen
