// RmsNorm, gate and up, SiLU, down and the residual.
// Up to 8 tokens: two launches of tile/gemv.cuh. The first has tiles of 4 gate rows and their 4 up
// rows, so that silu(gate) * up needs no trip through memory; the second adds to the residual.
// Bound: the weights' bytes.
// More: norm to F16, two cuBLAS products, silu(gate) * up to F16, and a product that adds.
#include "backends/cuda/cublas.h"
#include "backends/cuda/fuse/groups.h"
#include "backends/cuda/fuse/norm_halves.h"
#include "backends/cuda/gemm.h"
#include "backends/cuda/gemv.cuh"
#include "backends/cuda/tile/activation.cuh"

namespace qwen::cuda {
namespace {

struct GluJob {
  int n_tiles, n_cols, n_tokens;
  const float* x;
  const float* gain;
  float eps;
  tile::Weights gate, up;
  float* out;

  static constexpr bool kFewTiles = false;
  static constexpr int kPairs = tile::kRows / 2;
  struct State {};
  __device__ const tile::Weights& weights(int, int i) const { return i < kPairs ? gate : up; }
  __device__ std::int64_t row(int tile, int i) const {
    return min(tile * kPairs + i % kPairs, gate.n_rows - 1);
  }
  __device__ State prepare(int, int, int) const { return {}; }
  __device__ void finish(State, int tile, int token, int i, float sum, float partner) const {
    const int r = tile * kPairs + i;
    if (i >= kPairs || r >= gate.n_rows) return;
    out[static_cast<std::int64_t>(token) * gate.n_rows + r] = tile::silu(sum) * partner;
  }
};

void launch_small(const FeedForward& ops, const Launch& on) {
  const tile::Weights gate = weights_of(ops.gate.weight);
  const GluJob job{.n_tiles = (gate.n_rows + GluJob::kPairs - 1) / GluJob::kPairs,
                   .n_cols = gate.n_cols,
                   .n_tokens = static_cast<int>(ops.norm.x.shape[0]),
                   .x = ops.norm.x.f32(),
                   .gain = ops.norm.weight.f32(),
                   .eps = ops.norm.eps,
                   .gate = gate,
                   .up = weights_of(ops.up.weight),
                   .out = ops.glu.out.f32()};
  with_format(ops.gate.weight.dtype, [&]<class Format>() { launch_gemv<Format>(job, on); });
  gemv({.out = ops.add.x, .x = ops.glu.out, .weight = ops.down.weight, .add = true}, on);
}

void launch_large(const FeedForward& ops, const Launch& on) {
  const std::int64_t n_tokens = ops.norm.x.shape[0];
  norm_to_halves(on.workspace, ops.norm, on);
  const std::size_t gate_at = halves_bytes(n_tokens, ops.norm.x.cols());
  multiply_halves(ops.gate.out, on.workspace, ops.gate.weight, false, gate_at, on);
  multiply_halves(ops.up.out, on.workspace, ops.up.weight, false, gate_at, on);
  glu_to_halves(on.workspace, ops.glu, on);
  const std::size_t down_at = halves_bytes(n_tokens, ops.glu.out.cols());
  multiply_halves(ops.add.x, on.workspace, ops.down.weight, true, down_at, on);
}

}  // namespace

bool launch(const FeedForward& ops, const Launch& on) {
  const std::int64_t n_tokens = ops.norm.x.shape[0];
  if (n_tokens <= kGemvTokens) {
    if (ops.norm.x.cols() % 32 != 0 || ops.gate.weight.dtype != ops.up.weight.dtype ||
        !fits_gemv(n_tokens, ops.norm.x.cols(), on) || !fits_gemv(1, ops.glu.out.cols(), on)) {
      return false;
    }
    launch_small(ops, on);
    return true;
  }
  for (const Gemm* op : {&ops.gate, &ops.up, &ops.down}) {
    if (multiplies_f32(op->weight.dtype, on.exact)) return false;
  }
  launch_large(ops, on);
  return true;
}

bool launch(const Gemm& project, const Add& add, const Launch& on) {
  const std::int64_t n_tokens = project.x.shape[0];
  if (n_tokens <= kGemvTokens) {
    if (!fits_gemv(1, project.x.cols(), on)) return false;
    gemv({.out = add.x, .x = project.x, .weight = project.weight, .add = true}, on);
  } else {
    multiply(add.x, project.x, project.weight, true, on);
  }
  return true;
}

bool launch(const RmsNorm& norm, const Gemm& project, const Launch& on) {
  const std::int64_t n_tokens = norm.x.shape[0];
  if (n_tokens <= kGemvTokens) {
    if (!fits_gemv(1, norm.x.cols(), on)) return false;
    gemv({.out = project.out,
          .x = norm.x,
          .weight = project.weight,
          .gain = norm.weight.f32(),
          .eps = norm.eps},
         on);
    return true;
  }
  if (multiplies_f32(project.weight.dtype, on.exact)) return false;
  norm_to_halves(on.workspace, norm, on);
  multiply_halves(project.out, on.workspace, project.weight, false,
                  halves_bytes(n_tokens, norm.x.cols()), on);
  return true;
}

}  // namespace qwen::cuda
