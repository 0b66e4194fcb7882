#include "backends/registry.h"

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"
#include "backends/host.h"
#include "core/error.h"

namespace qwen {
namespace {

constexpr const char* kNoCuda = "this build has no CUDA backend";

}  // namespace

std::vector<Device> devices() {
  const HostMemory memory = host_memory();
  Device cuda{
      .kind = "cuda", .name = "NVIDIA GPU", .usable = false, .built = false, .why_not = kNoCuda};
  Device cpu{.kind = "cpu",
             .name = processor_name(),
             .usable = true,
             .memory_bytes = memory.total_bytes,
             .memory_free_bytes = memory.available_bytes};
  for (const std::string_view isa : CpuBackend::usable_isas()) cpu.features.emplace_back(isa);
  Device ref = cpu;
  ref.kind = "ref";
  ref.name = "scalar reference";
  ref.features.clear();
  return {cuda, cpu, ref};
}

std::unique_ptr<Backend> make_backend(std::string_view kind, const BackendOptions& options) {
  if (kind == "ref") return std::make_unique<ReferenceBackend>();
  if (kind == "cpu") {
    const int threads = options.threads > 0 ? options.threads : usable_cores();
    return std::make_unique<CpuBackend>(threads, options.isa);
  }
  throw Error({.exit = Exit::kModel,
               .code = "no_cuda",
               .message = std::string("--device ") + std::string(kind) + ": " + kNoCuda,
               .hint = "--device cpu runs on this machine"});
}

}  // namespace qwen
