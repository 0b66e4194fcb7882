// RmsNorm, the three projections, their biases, RoPE of q and k, and the write to the cache.
// Up to 8 tokens: tile/gemv.cuh, one launch per weight format, side by side. A tile is 4 pairs of a
// head, rows i..i+3 and i+half.., so that a rotation stays in one warp; q goes to its tensor, k and
// v straight to the cache. Bound: the weights' bytes. More: norm to F16, three cuBLAS products, and
// one kernel for the rest, one thread per pair.
#include "backends/cuda/cublas.h"
#include "backends/cuda/elementwise.h"
#include "backends/cuda/fuse/groups.h"
#include "backends/cuda/fuse/norm_halves.h"
#include "backends/cuda/gemm.h"
#include "backends/cuda/gemv.cuh"
#include "backends/cuda/kv_target.h"
#include "backends/cuda/tile/rope.cuh"

namespace qwen::cuda {
namespace {

// One of q, k, v.
struct Part {
  tile::Weights w;
  const float* bias;
  int n_heads;
};

struct QkvJob {
  int n_tiles, n_cols, n_tokens;
  const float* x;
  const float* gain;
  float eps;
  Part part[3];      // q, k, v
  bool included[3];  // those of this launch's weight format
  int head_dim;
  const float* inv_freq;
  float* q;
  tile::KvTarget kv;

  static constexpr bool kFewTiles = false;
  struct Place {
    int part, head, pair;  // the first of the tile's 4 pairs
  };
  __device__ Place place(int tile) const {
    const int tiles_per_head = head_dim / tile::kRows;
    Place p{0, tile / tiles_per_head, tile % tiles_per_head * 4};
    while (p.part < 2 && (!included[p.part] || p.head >= part[p.part].n_heads)) {
      if (included[p.part]) p.head -= part[p.part].n_heads;
      ++p.part;
    }
    return p;
  }
  __device__ int element(const Place& p, int i) const {
    return p.pair + i % 4 + (i < 4 ? 0 : head_dim / 2);
  }
  __device__ const tile::Weights& weights(int tile, int) const { return part[place(tile).part].w; }
  __device__ std::int64_t row(int tile, int i) const {
    const Place p = place(tile);
    return p.head * head_dim + element(p, i);
  }

  struct State {
    float2 rotation;
  };
  __device__ State prepare(int tile, int token, int i) const {
    const Place p = place(tile);
    if (p.part == 2) return {};
    return {tile::rotation(inv_freq[p.pair + i % 4], kv.pos[token])};
  }
  __device__ void finish(const State& state, int tile, int token, int i, float sum,
                         float partner) const {
    const Place p = place(tile);
    const float* bias = part[p.part].bias + p.head * head_dim;
    const int d = element(p, i);
    float v = sum + bias[d];
    if (p.part < 2) {
      const float other = partner + bias[element(p, i ^ 4)];
      v = i < 4 ? tile::rotate_low(v, other, state.rotation)
                : tile::rotate_high(other, v, state.rotation);
    }
    if (p.part == 0) {
      q[(static_cast<std::int64_t>(token) * part[0].n_heads + p.head) * head_dim + d] = v;
    } else {
      tile::store_kv(kv, p.part == 1, token, p.head, d, v);
    }
  }
};

// The rest after the products: one thread per (token, head of q, k and v, pair).
struct Finish {
  float *q, *k, *v;
  const float* bias[3];
  int n_heads, n_kv_heads, half;
  const float* inv_freq;
  tile::KvTarget kv;
};

__global__ void finish_qkv(Finish f, std::int64_t n) {
  tile::let_next_start();
  tile::wait_for_inputs();
  const std::int64_t thread = std::int64_t{blockIdx.x} * kElementThreads + threadIdx.x;
  if (thread >= n) return;
  const int i = static_cast<int>(thread % f.half);
  const int token = static_cast<int>(thread / f.half);
  const float2 r = tile::rotation(f.inv_freq[i], f.kv.pos[token]);
  const int head_dim = 2 * f.half;
  for (int part = 0; part < 3; ++part) {
    const int heads = part == 0 ? f.n_heads : f.n_kv_heads;
    float* x = (part == 0   ? f.q
                : part == 1 ? f.k
                            : f.v) +
               static_cast<std::int64_t>(token) * heads * head_dim;
    for (int h = static_cast<int>(blockIdx.y); h < heads; h += static_cast<int>(gridDim.y)) {
      float a = x[h * head_dim + i] + f.bias[part][h * head_dim + i];
      float b = x[h * head_dim + i + f.half] + f.bias[part][h * head_dim + i + f.half];
      if (part < 2) {
        const float low = tile::rotate_low(a, b, r);
        b = tile::rotate_high(a, b, r);
        a = low;
      }
      if (part == 0) {
        x[h * head_dim + i] = a;
        x[h * head_dim + i + f.half] = b;
      } else {
        tile::store_kv(f.kv, part == 1, token, h, i, a);
        tile::store_kv(f.kv, part == 1, token, h, i + f.half, b);
      }
    }
  }
}

void launch_small(const NormQkv& ops, const Launch& on) {
  const Gemm* products[3] = {&ops.q, &ops.k, &ops.v};
  const AddBias* biases[3] = {&ops.q_bias, &ops.k_bias, &ops.v_bias};
  const auto head_dim = static_cast<int>(ops.rope_q.x.shape[2]);
  QkvJob job{.n_tiles = 0,
             .n_cols = static_cast<int>(ops.norm.x.cols()),
             .n_tokens = static_cast<int>(ops.norm.x.shape[0]),
             .x = ops.norm.x.f32(),
             .gain = ops.norm.weight.f32(),
             .eps = ops.norm.eps,
             .part = {},
             .included = {},
             .head_dim = head_dim,
             .inv_freq = ops.rope_q.inv_freq.f32(),
             .q = ops.q.out.f32(),
             .kv = kv_target(ops.write)};
  for (int p = 0; p < 3; ++p) {
    job.part[p] = {weights_of(products[p]->weight), biases[p]->bias.f32(),
                   static_cast<int>(products[p]->weight.shape[0]) / head_dim};
  }
  const bool one_format =
      ops.q.weight.dtype == ops.k.weight.dtype && ops.q.weight.dtype == ops.v.weight.dtype;
  bool done[3] = {};
  for (int p = 0; p < 3; ++p) {
    if (done[p]) continue;
    const DType dtype = products[p]->weight.dtype;
    tile::Company company = p == 0 ? tile::Company::kLeads : tile::Company::kFollows;
    if (one_format) company = tile::Company::kAlone;
    job.n_tiles = 0;
    for (int other = 0; other < 3; ++other) {
      job.included[other] = products[other]->weight.dtype == dtype;
      if (!job.included[other]) continue;
      done[other] = true;
      job.n_tiles += job.part[other].n_heads * head_dim / tile::kRows;
    }
    with_format(dtype, [&]<class Format>() { launch_gemv<Format>(job, on, company); });
  }
}

void launch_large(const NormQkv& ops, const Launch& on) {
  const std::int64_t n_tokens = ops.norm.x.shape[0];
  const std::size_t weights_at = halves_bytes(n_tokens, ops.norm.x.cols());
  norm_to_halves(on.workspace, ops.norm, on);
  for (const Gemm* op : {&ops.q, &ops.k, &ops.v}) {
    multiply_halves(op->out, on.workspace, op->weight, false, weights_at, on);
  }
  const auto half = static_cast<int>(ops.rope_q.x.shape[2] / 2);
  const Finish f{.q = ops.q.out.f32(),
                 .k = ops.k.out.f32(),
                 .v = ops.v.out.f32(),
                 .bias = {ops.q_bias.bias.f32(), ops.k_bias.bias.f32(), ops.v_bias.bias.f32()},
                 .n_heads = static_cast<int>(ops.rope_q.x.shape[1]),
                 .n_kv_heads = static_cast<int>(ops.rope_k.x.shape[1]),
                 .half = half,
                 .inv_freq = ops.rope_q.inv_freq.f32(),
                 .kv = kv_target(ops.write)};
  // An angle serves several heads; the heads are dealt to as many blocks as there are KV heads.
  const dim3 grid(element_blocks(n_tokens * half), static_cast<unsigned>(f.n_kv_heads));
  launch_kernel(finish_qkv, Start::kMayOverlap, grid, kElementThreads, 0, on, f, n_tokens * half);
}

}  // namespace

bool launch(const NormQkv& ops, const Launch& on) {
  const std::int64_t n_tokens = ops.norm.x.shape[0];
  if (n_tokens <= kGemvTokens) {
    if (ops.norm.x.cols() % 32 != 0 || ops.rope_q.x.shape[2] % tile::kRows != 0 ||
        !fits_gemv(n_tokens, ops.norm.x.cols(), on)) {
      return false;
    }
    launch_small(ops, on);
    return true;
  }
  for (const Gemm* op : {&ops.q, &ops.k, &ops.v}) {
    if (multiplies_f32(op->weight.dtype, on.exact)) return false;
  }
  launch_large(ops, on);
  return true;
}

}  // namespace qwen::cuda
