// How many bytes a stretch of a test allocates at most. The program that includes this must link
// allocation_peak.cpp, which replaces the global operator new.
#pragma once

#include <cstddef>

namespace qwen::testing {

// Counts from its construction on; one at a time, one thread.
class AllocationPeak {
 public:
  AllocationPeak();
  // The most bytes that were allocated at once, beyond those at the construction.
  std::size_t bytes() const;

 private:
  std::size_t before_;
};

}  // namespace qwen::testing
