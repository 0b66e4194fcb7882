// Launch geometry of the ops that work element by element.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cuda/launch_kernel.h"

namespace qwen::cuda {

inline constexpr int kElementThreads = 256;

// Blocks so that every element has a thread.
inline unsigned element_blocks(std::int64_t n) {
  return static_cast<unsigned>((n + kElementThreads - 1) / kElementThreads);
}

}  // namespace qwen::cuda
