// Memory of the host.
#pragma once

#include <cstddef>
#include <memory>

#include "core/backend.h"

namespace qwen::cpu {

// At least one byte, aligned to 64. Throws Error (Exit::kOutOfMemory).
Buffer allocate_memory(std::size_t bytes);

// Memory in huge pages where the system has them, which take fewer TLB misses to stream and fewer
// page faults to fill. What is taken lies one behind the other: small pieces share pages. (Not for
// a cache of a long context, of which a short one uses the beginning of each layer's part: each
// would cost a huge page.)
class HugePages {
 public:
  // At least one byte, aligned to 64. Throws as allocate_memory(). Blocks of pages are free again
  // when all that was taken of them is.
  std::shared_ptr<std::byte> take(std::size_t bytes);

 private:
  std::shared_ptr<std::byte> block_;
  std::size_t size_ = 0;
  std::size_t used_ = 0;
};

}  // namespace qwen::cpu
