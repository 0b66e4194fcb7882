// out = x / sqrt(mean(x^2) + eps) * weight, per row of dim; all FP32.
// One block of 256 threads per token; a thread takes every 256th element.
// Bytes: x, weight and out once (x twice, the second time from L1). Sums in FP32: per thread in
// order, then over the lanes, then over the warps.
#include "backends/cuda/launch_kernel.h"
#include "backends/cuda/tile/rms.cuh"

namespace qwen::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void rms_norm(float* out, const float* x, const float* weight, float eps, int dim) {
  x += std::int64_t{blockIdx.x} * dim;
  out += std::int64_t{blockIdx.x} * dim;
  const float scale = tile::block_inverse_rms<kThreads>(x, dim, eps);
  for (int i = static_cast<int>(threadIdx.x); i < dim; i += kThreads) {
    out[i] = x[i] * scale * weight[i];
  }
}

}  // namespace

void launch(const RmsNorm& op, const Launch& on) {
  launch_kernel(rms_norm, Start::kInOrder, static_cast<unsigned>(op.x.shape[0]), kThreads, 0, on,
                op.out.f32(), op.x.f32(), op.weight.f32(), op.eps, static_cast<int>(op.x.cols()));
}

}  // namespace qwen::cuda
