// x[t][c] += bias[c], FP32, one thread per element. Bytes: x read and written, bias from L2.
#include "backends/cuda/elementwise.h"

namespace qwen::cuda {
namespace {

__global__ void add_bias(float* x, const float* bias, int cols, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kElementThreads + threadIdx.x;
  if (i < n) x[i] += bias[i % cols];
}

}  // namespace

void launch(const AddBias& op, const Launch& on) {
  launch_kernel(add_bias, Start::kInOrder, element_blocks(op.x.size()), kElementThreads, 0, on,
                op.x.f32(), op.bias.f32(), static_cast<int>(op.x.cols()), op.x.size());
}

}  // namespace qwen::cuda
