// out[i] = x[rows[i]], FP32, one thread per element, blockIdx.y the row.
#include "backends/cuda/elementwise.h"
#include "backends/cuda/tile/reduce.cuh"

namespace qwen::cuda {
namespace {

__global__ void take_rows(float* out, const float* x, const int* rows, int dim) {
  tile::let_next_start();
  tile::wait_for_inputs();
  const int c = static_cast<int>(blockIdx.x * kElementThreads + threadIdx.x);
  if (c >= dim) return;
  out[std::int64_t{blockIdx.y} * dim + c] = x[std::int64_t{rows[blockIdx.y]} * dim + c];
}

}  // namespace

void launch(const TakeRows& op, const Launch& on) {
  const dim3 grid(element_blocks(op.out.cols()), static_cast<unsigned>(op.out.shape[0]));
  launch_kernel(take_rows, Start::kMayOverlap, grid, kElementThreads, 0, on, op.out.f32(),
                op.x.f32(), op.rows.i32(), static_cast<int>(op.out.cols()));
}

}  // namespace qwen::cuda
