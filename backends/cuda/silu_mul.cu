// out = silu(gate) * up, FP32, one thread per element. Bytes: two reads, one write.
#include "backends/cuda/elementwise.h"
#include "backends/cuda/tile/activation.cuh"

namespace qwen::cuda {
namespace {

__global__ void silu_mul(float* out, const float* gate, const float* up, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kElementThreads + threadIdx.x;
  if (i < n) out[i] = tile::silu(gate[i]) * up[i];
}

}  // namespace

void launch(const SiluMul& op, const Launch& on) {
  launch_kernel(silu_mul, Start::kInOrder, element_blocks(op.out.size()), kElementThreads, 0, on,
                op.out.f32(), op.gate.f32(), op.up.f32(), op.out.size());
}

}  // namespace qwen::cuda
