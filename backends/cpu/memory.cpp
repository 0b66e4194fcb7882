#include "backends/cpu/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

#include "core/error.h"

namespace qwen::cpu {
namespace {

std::size_t rounded_up(std::size_t bytes, std::size_t multiple) {
  return (std::max<std::size_t>(bytes, 1) + multiple - 1) / multiple * multiple;
}

Buffer allocate_aligned(std::size_t bytes, std::size_t alignment, std::string hint) {
  const std::size_t size = rounded_up(bytes, alignment);
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

std::shared_ptr<std::byte> HugePages::take(std::size_t bytes) {
  constexpr std::size_t kPage = std::size_t{2} << 20;
  constexpr std::size_t kBlock = 32 * kPage;  // what is not written takes no memory
  const std::size_t size = rounded_up(bytes, 64);
  if (size > size_ - used_) {
    const std::size_t block = rounded_up(std::max(size, kBlock), kPage);
    block_ = allocate_aligned(block, kPage, "--exact needs less");
    size_ = block;
    used_ = 0;
    madvise(block_.get(), block, MADV_HUGEPAGE);
  }
  std::byte* const at = block_.get() + used_;
  used_ += size;
  return {block_, at};
}

}  // namespace qwen::cpu
