#include "backends/cpu/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

#include "core/error.h"

namespace qwen::cpu {
namespace {

Buffer allocate_aligned(std::size_t bytes, std::size_t alignment, std::string hint) {
  const std::size_t size =
      (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(alignment, size));
  if (memory == nullptr) {
    throw Error({.exit = Exit::kOutOfMemory,
                 .code = "out_of_memory",
                 .message = "cannot allocate " + std::to_string(bytes >> 20) + " MiB of memory",
                 .hint = std::move(hint)});
  }
  return Buffer(memory, [](std::byte* p) { std::free(p); });
}

}  // namespace

Buffer allocate_memory(std::size_t bytes) {
  return allocate_aligned(bytes, 64, "a smaller context (-c) needs less");
}

Buffer allocate_huge_pages(std::size_t bytes) {
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  if (bytes < kHugePage) return allocate_memory(bytes);
  Buffer memory = allocate_aligned(bytes, kHugePage, "--exact needs less");
  // Whole ones only: the rest of the last would be memory that nobody uses.
  madvise(memory.get(), bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return memory;
}

}  // namespace qwen::cpu
