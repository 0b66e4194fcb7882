// Facts about this machine that backends and their users need.
#pragma once

#include <cstddef>
#include <string>

namespace qwen {

// Physical cores that this process may use: its affinity mask, without the second threads of a
// core, and no more than its cgroup's CPU quota. At least 1.
int usable_cores();

// "AMD EPYC 9655"; "cpu" if the system does not tell.
std::string processor_name();

struct HostMemory {
  std::size_t total_bytes = 0;
  std::size_t available_bytes =
      0;  // what can be allocated without swapping; cgroup limit respected
};
HostMemory host_memory();

}  // namespace qwen
