// GuardedRange: memory mapped from a file that somebody else may cut. A page that the file no
// longer has raises SIGBUS when it is read; here it reads as zeros, and the range knows.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

namespace qwen {

class GuardedRange {
 public:
  // `bytes` must be mapped from page boundary on, read-only, until the object is gone. Throws Error
  // (too_many_files) if the process guards 64 already. The first one installs a handler for SIGBUS,
  // which hands all other faults on to the one before it and stays; a later one installs it again
  // if somebody has put the standard action in its place. Who puts a handler of his own there must
  // hand on to it.
  explicit GuardedRange(std::span<const std::byte> bytes);
  ~GuardedRange();
  GuardedRange(const GuardedRange&) = delete;
  GuardedRange& operator=(const GuardedRange&) = delete;

  // The offset of the first page that could not be read, once there is one: what was read since
  // then may be zeros.
  std::optional<std::size_t> lost() const;

 private:
  std::size_t slot_;
};

}  // namespace qwen
