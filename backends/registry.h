// Which backends this build has, what they can run on here, and how to make one.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backends/cuda/options.h"
#include "core/backend.h"

namespace qwen {

struct BackendOptions {
  int threads = 0;  // 0: usable_cores() (host.h)
  // "", "avx512", "avxvnni", "avx2" or "baseline": the cpu backend's instruction set
  std::string isa = {};
  bool exact = false;  // FP32 operands in every matrix product
  CudaOptions cuda = {};
};

struct Device {
  std::string kind;  // "cuda", "cpu", "ref"
  std::string name;  // "AMD EPYC"
  bool usable = false;
  bool built = true;         // false: this build has no backend for it
  std::string why_not = {};  // empty if usable
  std::size_t memory_bytes = 0;
  std::size_t memory_free_bytes = 0;
  std::vector<std::string> features = {};  // "avx512", ...
};

// Every kind of device the project knows, usable here or not, the preferred one first.
std::vector<Device> devices();

// A backend of that kind ("cuda", "cpu" or "ref"). Throws Error (Exit::kModel) with the reason if
// it cannot be used here; it never falls back to another.
std::unique_ptr<Backend> make_backend(std::string_view kind, const BackendOptions& options);

}  // namespace qwen
