#include "backends/registry.h"

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"
#include "backends/host.h"
#include "core/error.h"

#if QWEN_CUDA

#include "backends/cuda/cuda_backend.h"
#include "backends/cuda/device.h"

namespace qwen {
namespace {

Device cuda_device() {
  const cuda::DeviceInfo info = cuda::probe_device();
  return {.kind = "cuda",
          .name = info.name.empty() ? "NVIDIA GPU" : info.name,
          .usable = info.usable,
          .why_not = info.why_not,
          .memory_bytes = info.memory_bytes,
          .memory_free_bytes = info.memory_free_bytes,
          .features = info.features};
}

std::unique_ptr<Backend> make_cuda(const BackendOptions& options) {
  return std::make_unique<CudaBackend>(options.cuda, options.exact);
}

}  // namespace
}  // namespace qwen

#else

namespace qwen {
namespace {

constexpr const char* kNoCuda = "this build has no CUDA backend";

Device cuda_device() {
  return {.kind = "cuda", .name = "NVIDIA GPU", .built = false, .why_not = kNoCuda};
}

std::unique_ptr<Backend> make_cuda(const BackendOptions&) {
  throw Error({.exit = Exit::kModel,
               .code = "no_cuda",
               .message = std::string("--device cuda: ") + kNoCuda,
               .hint = "--device cpu runs on this machine"});
}

}  // namespace
}  // namespace qwen

#endif

namespace qwen {

std::vector<Device> devices() {
  const HostMemory memory = host_memory();
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
  return {cuda_device(), cpu, ref};
}

std::unique_ptr<Backend> make_backend(std::string_view kind, const BackendOptions& options) {
  if (kind == "ref") return std::make_unique<ReferenceBackend>();
  if (kind == "cuda") return make_cuda(options);
  const int threads = options.threads > 0 ? options.threads : usable_cores();
  return std::make_unique<CpuBackend>(threads, options.isa,
                                      options.exact ? Activations::kF32 : Activations::kInt8);
}

}  // namespace qwen
