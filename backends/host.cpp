#include "backends/host.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>

namespace qwen {
namespace {

// First line of a file, or "" if it cannot be read.
std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// The value of "key   : value" or "key: value" in a file of such lines.
std::string field(const std::string& path, const std::string& key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::size_t start = line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

int affinity_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  std::set<std::string> cores;  // by the list of hardware threads that share the core
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    const std::string name = "cpu" + std::to_string(cpu);
    const std::string siblings =
        first_line("/sys/devices/system/cpu/" + name + "/topology/thread_siblings_list");
    cores.insert(siblings.empty() ? name : siblings);
  }
  return std::max(1, static_cast<int>(cores.size()));
}

// Where this process' cgroup lies in the file system of cgroup version 2.
std::string cgroup_dir() {
  const std::string line = first_line("/proc/self/cgroup");  // "0::/path"
  return line.starts_with("0::") ? "/sys/fs/cgroup" + line.substr(3) : "/sys/fs/cgroup";
}

}  // namespace

int usable_cores() {
  const int cores = affinity_cores();
  std::istringstream quota(
      first_line(cgroup_dir() + "/cpu.max"));  // "200000 100000" or "max 100000"
  double allowed = 0;
  double period = 0;
  if (!(quota >> allowed >> period) || period <= 0) return cores;
  return std::clamp(static_cast<int>(std::ceil(allowed / period)), 1, cores);
}

std::string processor_name() {
  const std::string name = field("/proc/cpuinfo", "model name");
  return name.empty() ? "cpu" : name;
}

HostMemory host_memory() {
  const auto kib = [](const std::string& key) {
    return std::size_t{1024} * std::strtoull(field("/proc/meminfo", key).c_str(), nullptr, 10);
  };
  HostMemory memory{kib("MemTotal"), kib("MemAvailable")};
  const std::size_t limit =
      std::strtoull(first_line(cgroup_dir() + "/memory.max").c_str(), nullptr, 10);
  if (limit != 0 && limit < memory.total_bytes) {  // "max" reads as 0
    const std::size_t used =
        std::strtoull(first_line(cgroup_dir() + "/memory.current").c_str(), nullptr, 10);
    memory.total_bytes = limit;
    memory.available_bytes = std::min(memory.available_bytes, limit - std::min(used, limit));
  }
  return memory;
}

}  // namespace qwen
