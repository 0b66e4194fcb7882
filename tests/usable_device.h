// Whether tests of a device can run here.
#pragma once

#include <string>
#include <string_view>

#include "backends/registry.h"

namespace qwen::testing {

// Empty if a device of that kind ("cuda", "cpu", "ref") can be used here; else what GTEST_SKIP()
// says.
inline std::string why_skipped(std::string_view kind) {
  for (const Device& device : devices()) {
    if (device.kind == kind && !device.usable) {
      return device.kind + " cannot be used here: " + device.why_not;
    }
  }
  return {};
}

}  // namespace qwen::testing
