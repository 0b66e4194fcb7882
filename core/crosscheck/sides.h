#pragma once

#include "core/backend.h"

namespace qwen::crosscheck {

// The two sides of a comparison, and who decides. All must outlive whoever holds it.
struct Sides {
  Backend& path;       // under test
  Backend& oracle;     // host memory; may be the reference itself
  Backend& reference;  // host memory: the definition. It judges again what the oracle finds wrong
  // Host memory: the fastest there, which may be the oracle. It lends its threads, runs one by one
  // what the path fuses, and runs the twins.
  Backend& host;
};

}  // namespace qwen::crosscheck
