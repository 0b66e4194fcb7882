// Writes every malformed file and every valid control, and prints what the loader says of each:
//   make_hostile_files [FOLDER]
// Without a folder nothing is written. A line: name, code ("" where it is accepted), message,
// milliseconds of processor time, MiB allocated at most. The most of both goes to standard error.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <exception>
#include <filesystem>
#include <string>

#include "core/error.h"
#include "tests/allocation_peak.h"
#include "tests/error_of.h"
#include "tests/hostile_cases.h"
#include "tests/hostile_load.h"

namespace qwen::testing {
namespace {

struct Spent {
  double ms, mib;
};

Spent report(const std::string& folder, const std::string& name, const Bytes& file) {
  if (!folder.empty()) fixtures::write_file(folder + "/" + name + ".gguf", file);
  const auto source = from_memory(std::span<const std::byte>(file), name + ".gguf");
  const AllocationPeak peak;
  const std::clock_t start = std::clock();
  const ErrorInfo e = error_of([&] { load_and_step(source); });
  const Spent spent = {1e3 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC,
                       static_cast<double>(peak.bytes()) / (1 << 20)};
  std::printf("%s\t%s\t%s\t%.2f\t%.2f\n", name.c_str(), e.code.c_str(), e.message.c_str(), spent.ms,
              spent.mib);
  return spent;
}

// What a load refuses; what a template does when it is rendered has limits of its own.
void report_malformed(const std::string& folder) {
  Spent most = {};
  std::string slowest, largest;
  int n_loads = 0;
  for (const HostileCase& c : hostile_cases()) {
    const Spent spent = report(folder, c.name, c.file());
    if (c.code.starts_with("template_")) continue;
    ++n_loads;
    if (spent.ms > most.ms) slowest = c.name;
    if (spent.mib > most.mib) largest = c.name;
    most = {std::max(most.ms, spent.ms), std::max(most.mib, spent.mib)};
  }
  std::fprintf(stderr, "%d malformed files: at most %.2f ms (%s), %.2f MiB (%s)\n", n_loads,
               most.ms, slowest.c_str(), most.mib, largest.c_str());
}

}  // namespace
}  // namespace qwen::testing

int main(int argc, char** argv) {
  using namespace qwen::testing;
  try {
    const std::string folder = argc > 1 ? argv[1] : "";
    if (!folder.empty()) std::filesystem::create_directories(folder);
    report_malformed(folder);
    for (const ValidCase& c : valid_cases()) report(folder, "valid_" + c.name, c.file());
    const Spent keys = report(folder, "valid_a_million_keys",
                              edited([](auto& w) { add_tiny_keys(w, 1000000); })());
    std::fprintf(stderr, "a million tiny keys: %.0f ms, %.0f MiB\n", keys.ms, keys.mib);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
