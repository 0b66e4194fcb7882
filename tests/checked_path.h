// A device's path, and who judges it.
#pragma once

#include <memory>
#include <string_view>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"
#include "backends/registry.h"
#include "core/crosscheck/sides.h"

namespace qwen::testing {

// "cpu", "cuda", or "cpu_int8": with activations as integers. The CPU's path is judged by the
// reference, a GPU's by the CPU's. On one thread, and but for "cpu_int8" exact: F16 operands and
// scores in the hundreds leave bounds that say nothing.
class CheckedPath {
 public:
  explicit CheckedPath(std::string_view kind)
      : path_(kind == "cuda" ? make_backend(kind, {.exact = true})
                             : make_backend("cpu", {.threads = 1, .exact = kind == "cpu"})) {}

  Backend& path() { return *path_; }
  crosscheck::Sides sides() {
    Backend& oracle = path_->name() == "cpu" ? static_cast<Backend&>(reference_) : cpu_;
    return {*path_, oracle, reference_, cpu_};
  }

 private:
  std::unique_ptr<Backend> path_;
  CpuBackend cpu_{1, ""};
  ReferenceBackend reference_;
};

}  // namespace qwen::testing
