// The GPU that the backend runs on, as far as can be known without using it.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace qwen::cuda {

struct DeviceInfo {
  bool usable = false;
  std::string why_not = {};  // empty if usable
  std::string name = {};
  std::size_t memory_bytes = 0;
  std::size_t memory_free_bytes = 0;
  std::vector<std::string> features = {};  // "sm_90", ...
};

// The first device. Never throws; where there is no driver it says so.
DeviceInfo probe_device();

}  // namespace qwen::cuda
