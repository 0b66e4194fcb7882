// Memory of the host.
#pragma once

#include <cstddef>

#include "core/backend.h"

namespace qwen::cpu {

// At least one byte, aligned to 64. Throws Error (Exit::kOutOfMemory).
Buffer allocate_memory(std::size_t bytes);

// The same for what is used as a whole: in huge pages where the system has them, which take fewer
// TLB misses to stream and fewer page faults to fill. (Of a cache for a long context, a short one
// uses the beginning of each layer's part: each would cost a huge page.)
Buffer allocate_huge_pages(std::size_t bytes);

}  // namespace qwen::cpu
