// RmsNorm and SiluMul whose output is rounded to F16 for cuBLAS (times kScale, tile/mma.cuh): saves
// the FP32 result's way through memory. The norm: one block per token, as rms_norm.cu. The product:
// one thread per element.
#include "backends/cuda/fuse/norm_halves.h"

#include "backends/cuda/elementwise.h"
#include "backends/cuda/tile/activation.cuh"
#include "backends/cuda/tile/mma.cuh"
#include "backends/cuda/tile/rms.cuh"

namespace qwen::cuda {
namespace {

__global__ void norm_halves(__half* out, const float* x, const float* weight, float eps, int dim) {
  tile::let_next_start();
  tile::wait_for_inputs();
  x += std::int64_t{blockIdx.x} * dim;
  out += std::int64_t{blockIdx.x} * dim;
  const float scale = tile::block_inverse_rms<kElementThreads>(x, dim, eps);
  for (int i = static_cast<int>(threadIdx.x); i < dim; i += kElementThreads) {
    out[i] = __float2half_rn(x[i] * scale * weight[i] * tile::kScale);
  }
}

__global__ void glu_halves(__half* out, const float* gate, const float* up, std::int64_t n) {
  tile::let_next_start();
  tile::wait_for_inputs();
  const std::int64_t i = 4 * (std::int64_t{blockIdx.x} * kElementThreads + threadIdx.x);
  const auto product = [&](float g, float u) {
    return __float2half_rn(tile::silu(g) * u * tile::kScale);
  };
  if (i + 3 < n) {
    const float4 g = *reinterpret_cast<const float4*>(gate + i);
    const float4 u = *reinterpret_cast<const float4*>(up + i);
    *reinterpret_cast<uint2*>(out + i) = {tile::pack(product(g.x, u.x), product(g.y, u.y)),
                                          tile::pack(product(g.z, u.z), product(g.w, u.w))};
    return;
  }
  for (std::int64_t j = i; j < n; ++j) out[j] = product(gate[j], up[j]);
}

}  // namespace

void norm_to_halves(std::byte* halves, const RmsNorm& op, const Launch& on) {
  launch_kernel(norm_halves, Start::kMayOverlap, static_cast<unsigned>(op.x.shape[0]),
                kElementThreads, 0, on, reinterpret_cast<__half*>(halves), op.x.f32(),
                op.weight.f32(), op.eps, static_cast<int>(op.x.cols()));
}

void glu_to_halves(std::byte* halves, const SiluMul& op, const Launch& on) {
  const std::int64_t n = op.out.size();
  launch_kernel(glu_halves, Start::kMayOverlap, element_blocks((n + 3) / 4), kElementThreads, 0, on,
                reinterpret_cast<__half*>(halves), op.gate.f32(), op.up.f32(), n);
}

}  // namespace qwen::cuda
