// What must never happen has to stop a fuzzer as a crash does: no exception, no failed expectation.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace qwen::testing {

// Ends the process with a message unless `holds`.
inline void require(bool holds, std::string_view what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

}  // namespace qwen::testing
