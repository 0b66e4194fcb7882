#include "backends/cuda/device.h"

#include <cuda_runtime_api.h>

#include "backends/cuda/repack.h"

namespace qwen::cuda {
namespace {

// mma.sync on F16 with FP32 sums, and asynchronous copies.
constexpr int kLeastMajor = 8;

std::string reason(cudaError_t status) {
  switch (status) {
    case cudaErrorInsufficientDriver: {
      int version = 0;
      if (cudaDriverGetVersion(&version) != cudaSuccess || version == 0) {
        return "no CUDA device (driver not found)";
      }
      return "the driver is too old for CUDA " + std::to_string(CUDART_VERSION / 1000) + "." +
             std::to_string(CUDART_VERSION % 1000 / 10);
    }
    case cudaErrorNoDevice:
      return "no CUDA device";
    default:
      return std::string("CUDA: ") + cudaGetErrorString(status);
  }
}

}  // namespace

DeviceInfo probe_device() {
  DeviceInfo device;
  int count = 0;
  cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count == 0) status = cudaErrorNoDevice;
  cudaDeviceProp properties{};
  if (status == cudaSuccess) status = cudaGetDeviceProperties(&properties, 0);
  if (status != cudaSuccess) {
    cudaGetLastError();
    device.why_not = reason(status);
    return device;
  }
  device.name = properties.name;
  const std::string capability =
      std::to_string(properties.major) + "." + std::to_string(properties.minor);
  device.features = {"compute " + capability,
                     std::to_string(properties.multiProcessorCount) + " multiprocessors"};
  device.memory_bytes = properties.totalGlobalMem;
  if (properties.major < kLeastMajor) {
    device.why_not =
        "compute capability " + capability + " is below " + std::to_string(kLeastMajor) + ".0";
    return device;
  }
  if (!has_device_code()) {
    device.why_not = "this build has no code for compute capability " + capability;
    return device;
  }
  std::size_t total = 0;
  status = cudaMemGetInfo(&device.memory_free_bytes, &total);
  if (status != cudaSuccess) {
    cudaGetLastError();
    device.why_not = reason(status);
    return device;
  }
  device.usable = true;
  return device;
}

}  // namespace qwen::cuda
