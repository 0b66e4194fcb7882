// Attention, keys split over blocks: out = sum_j softmax(scale * q.k_j) v_j, lse its log-sum-exp.
// q, out F32 (n_tokens, n_heads, head_dim); cache F16 or F32 (n_pages, n_kv_heads, 64, head_dim).
// Block: one token, at most eight query heads of a key/value head, a range of pages (blockIdx =
// token, head chunk, split). Warp: every fourth tile of keys, an online softmax of its own; lane:
// eight dimensions. Merged: warps in shared memory, splits by the last block, in fixed order.
// Moves each key and value once per chunk of heads; bound: latency at batch 1, HBM at batch 256.
// FP32 throughout. Even head_dim up to 256; other page sizes take the general kernel.
#include <cuda_fp16.h>

#include <string>

#include "backends/cuda/attention.h"
#include "backends/cuda/launch_kernel.h"
#include "backends/cuda/tile/attention.cuh"
#include "backends/cuda/tile/reduce.cuh"
#include "core/error.h"
#include "core/kv_layout.h"

namespace qwen::cuda {
namespace {

static_assert(kSplitHeads == tile::kRowHeads);

// Four warps of four keys per lane group: with head_dim 64 one page of 64 keys in one step.
constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kKeys = 4;

// Partial rows that the last block loads at once: contexts up to 1,024 cost one round trip.
constexpr int kMergeChunk = 16;

// The largest head_dim: eight elements per lane.
constexpr std::int64_t kMaxHeadDim = 256;

struct SplitArgs {
  float* out;                 // (n_tokens, n_heads, head_dim)
  float* lse;                 // (n_tokens, n_heads)
  const float* q;             // (n_tokens, n_heads, head_dim)
  const void* k_cache;        // (n_pages, n_kv_heads, page_tokens, head_dim)
  const void* v_cache;        // as k_cache
  const std::int32_t* pos;    // (n_tokens)
  const std::int32_t* seq;    // (n_tokens)
  const std::int32_t* pages;  // (n_seqs, pages_per_seq)
  float4* values;             // (n_tokens, n_heads, splits, width / 4), width = head_dim up to 8s
  float2* softmax;            // (n_tokens, n_heads, splits): maximum and sum
  unsigned* counters;         // (n_tokens, n_kv_heads, chunks)
  KvLayout layout;
  float scale;  // scale * log2(e)
  int n_heads;
  int group;        // query heads per key/value head
  int chunks;       // blocks per group
  int chunk_heads;  // query heads per block, of the last one perhaps fewer
};

// Whether all `expected` blocks of a row have come; true for exactly one of them, which then sees
// what the others wrote. `counter` is 0 before and after.
__device__ bool last_to_arrive(unsigned* counter, unsigned expected) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(counter, 1u) == expected - 1;
    if (last) *counter = 0;
  }
  __syncthreads();
  __threadfence();
  return last;
}

// From how it is stored.
__device__ tile::SoftmaxState to_state(float2 x) { return {x.x, x.y}; }

// Stores elements d..d+3 of a row of head_dim.
template <bool kWhole>
__device__ void store(float* row, int d, int head_dim, float4 x) {
  if constexpr (kWhole) {
    *reinterpret_cast<float4*>(row + d) = x;
  } else {
    const float values[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (d + i < head_dim) row[d + i] = values[i];
    }
  }
}

// T: element of the cache. kHeadDim: 0 if known at run time only, with any page size. kLanes: lanes
// that share a key, at least head_dim / 8.
template <class T, int kHeadDim, int kLanes>
__global__ void __launch_bounds__(kThreads, 2) split_kv(const SplitArgs a) {
  constexpr bool kWhole = kHeadDim != 0;
  constexpr int kGroups = 32 / kLanes;        // keys that a warp holds side by side
  constexpr int kStepKeys = kKeys * kGroups;  // keys of a warp's step: 4, 8 or 16, all of one page
  constexpr int kHeld = tile::kRowHeads / kGroups;  // heads that a lane is left with
  static_assert(kPageTokensMultiple % kStepKeys == 0 && kHeadDim <= 8 * kLanes);
  __shared__ float4 warp_values[kWarps][tile::kRowHeads][2 * kLanes];
  __shared__ float2 warp_softmax[kWarps][tile::kRowHeads];  // maximum and sum

  KvLayout layout = a.layout;
  if constexpr (kWhole) {
    layout.page_tokens = kAttentionPage;
    layout.head_dim = kHeadDim;
  }
  const int head_dim = static_cast<int>(layout.head_dim);
  const int page_tokens = static_cast<int>(layout.page_tokens);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int first_dim = 8 * (lane % kLanes);
  const int dims = min(8, max(0, head_dim - first_dim));  // elements that this lane holds

  const int token = static_cast<int>(blockIdx.x);
  const int kv_head = static_cast<int>(blockIdx.y) / a.chunks;
  const int chunk = static_cast<int>(blockIdx.y) % a.chunks;
  const int split = static_cast<int>(blockIdx.z);
  const int n_splits = static_cast<int>(gridDim.z);
  const int heads = min(a.chunk_heads, a.group - chunk * a.chunk_heads);
  const std::int64_t row = static_cast<std::int64_t>(token) * a.n_heads + kv_head * a.group +
                           chunk * a.chunk_heads;  // of the first head

  tile::wait_for_inputs();
  tile::let_next_start();
  const int kv_len = a.pos[token] + 1;
  const std::int32_t seq = a.seq[token];
  const int n_pages = (kv_len + page_tokens - 1) / page_tokens;
  const int pages_per_split = (n_pages + n_splits - 1) / n_splits;
  const int first_key = split * pages_per_split * page_tokens;
  if (first_key >= kv_len) return;
  const int end_key = min(kv_len, first_key + pages_per_split * page_tokens);
  const int end_step = (end_key + kStepKeys - 1) / kStepKeys;

  // Elements of the cache from its start to key step * kStepKeys; these keys are contiguous.
  const auto step_offset = [&](int step) {
    return step < end_step ? kv_offset(layout, a.pages, seq, kv_head, step * kStepKeys, 0) : 0;
  };
  const auto load_step = [&](tile::CacheVector<T>(&to)[kKeys], const void* cache,
                             std::int64_t offset, int step) {
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      const int key = j * kGroups + lane / kLanes;
      const bool present = step * kStepKeys + key < end_key;
      tile::load_vector<kWhole>(to[j],
                                static_cast<const T*>(cache) + offset + key * head_dim + first_dim,
                                present ? dims : 0);
    }
  };

  int step = first_key / kStepKeys + warp;
  std::int64_t offset = step_offset(step);
  std::int64_t next_offset = step_offset(step + kWarps);
  float q[tile::kRowHeads][8];
#pragma unroll
  for (int h = 0; h < tile::kRowHeads; ++h) {
    tile::CacheVector<float> x;
    tile::load_vector<kWhole>(x, a.q + (row + h) * head_dim + first_dim, h < heads ? dims : 0);
    tile::to_float(x, q[h]);
  }
  tile::CacheVector<T> k[kKeys];
  load_step(k, a.k_cache, offset, step);

  // The softmax of head lane % 8, its sum over the keys of this lane's group; eight dimensions of
  // the values' sums of all heads, over the same keys.
  tile::SoftmaxState softmax;
  float acc[tile::kRowHeads][8] = {};
  for (; step < end_step; step += kWarps) {
    tile::CacheVector<T> v[kKeys];
    load_step(v, a.v_cache, offset, step);

    float score[kKeys];
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      float x[8];
      float dot[tile::kRowHeads];
      tile::to_float(k[j], x);
      tile::partial_dots(dot, q, x);
      const float sum = tile::scatter_sum<kLanes>(dot, lane);
      const bool present = step * kStepKeys + j * kGroups + lane / kLanes < end_key;
      score[j] = present ? sum * a.scale : -INFINITY;
    }
    offset = next_offset;
    load_step(k, a.k_cache, offset, step + kWarps);
    next_offset = step_offset(step + 2 * kWarps);

    tile::update_softmax<kLanes>(softmax, score, acc);
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      float x[8];
      tile::to_float(v[j], x);
      tile::add_values<kLanes>(acc, score[j], x);
    }
  }

#pragma unroll
  for (int stride = kLanes; stride < 32; stride *= 2) {
    softmax.sum += __shfl_xor_sync(tile::kAllLanes, softmax.sum, stride);
  }
  if (lane < tile::kRowHeads) warp_softmax[warp][lane] = make_float2(softmax.max, softmax.sum);
  tile::scatter_values<kLanes>(acc, lane);
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    float4* to = warp_values[warp][lane / kLanes * kHeld + i] + 2 * (lane % kLanes);
    to[0] = make_float4(acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
    to[1] = make_float4(acc[i][4], acc[i][5], acc[i][6], acc[i][7]);
  }
  __syncthreads();

  // From here on a thread has four dimensions of one head.
  const int row_vectors = 2 * ((head_dim + 7) / 8);
  const int n_items = heads * row_vectors;
  const auto finish = [&](int h, int vector, const tile::PartialRow& total) {
    const float scale = 1.0f / total.softmax.sum;
    store<kWhole>(a.out + (row + h) * head_dim, 4 * vector, head_dim,
                  make_float4(total.value.x * scale, total.value.y * scale, total.value.z * scale,
                              total.value.w * scale));
    if (vector == 0) a.lse[row + h] = tile::log_sum_exp(total.softmax);
  };
  const int active = (n_pages + pages_per_split - 1) / pages_per_split;
  for (int i = static_cast<int>(threadIdx.x); i < n_items; i += kThreads) {
    const int h = i / row_vectors;
    const int vector = i % row_vectors;
    const tile::PartialRow total = tile::merge_rows<kWarps>(
        kWarps, [&](int w) { return to_state(warp_softmax[w][h]); },
        [&](int w) { return warp_values[w][h][vector]; });
    if (active == 1) {
      finish(h, vector, total);
      continue;
    }
    const std::int64_t part = (row + h) * n_splits + split;
    __stcg(a.values + part * row_vectors + vector, total.value);
    if (vector == 0) __stcg(a.softmax + part, make_float2(total.softmax.max, total.softmax.sum));
  }
  if (active == 1) return;

  const std::int64_t counter = static_cast<std::int64_t>(token) * gridDim.y + blockIdx.y;
  if (!last_to_arrive(a.counters + counter, static_cast<unsigned>(active))) return;
  for (int i = static_cast<int>(threadIdx.x); i < n_items; i += kThreads) {
    const int h = i / row_vectors;
    const int vector = i % row_vectors;
    const float2* softmax_parts = a.softmax + (row + h) * n_splits;
    const float4* value_parts = a.values + (row + h) * n_splits * row_vectors + vector;
    finish(h, vector,
           tile::merge_rows<kMergeChunk>(
               active, [&](int s) { return to_state(__ldcg(softmax_parts + s)); },
               [&](int s) { return __ldcg(value_parts + s * row_vectors); }));
  }
}

template <class T>
void start(const SplitArgs& args, dim3 grid, const Launch& on) {
  const std::int64_t head_dim =
      args.layout.page_tokens == kAttentionPage ? args.layout.head_dim : 0;
  switch (head_dim) {
    case 64:
      launch_kernel(split_kv<T, 64, 8>, Start::kMayOverlap, grid, kThreads, 0, on, args);
      break;
    case 80:
      launch_kernel(split_kv<T, 80, 16>, Start::kMayOverlap, grid, kThreads, 0, on, args);
      break;
    case 96:
      launch_kernel(split_kv<T, 96, 16>, Start::kMayOverlap, grid, kThreads, 0, on, args);
      break;
    case 128:
      launch_kernel(split_kv<T, 128, 16>, Start::kMayOverlap, grid, kThreads, 0, on, args);
      break;
    default:
      launch_kernel(split_kv<T, 0, 32>, Start::kMayOverlap, grid, kThreads, 0, on, args);
      break;
  }
}

void launch_splits(const Attention& op, const Launch& on) {
  const std::int64_t n_tokens = op.q.shape[0];
  const std::int64_t n_heads = op.q.shape[1];
  const std::int64_t head_dim = op.q.shape[2];
  if (head_dim % 2 != 0 || head_dim > kMaxHeadDim) {
    throw Error({.code = "unsupported_head_dim",
                 .message = "attention on CUDA takes an even head_dim of at most " +
                            std::to_string(kMaxHeadDim) + ", got " + std::to_string(head_dim)});
  }
  const KvLayout layout = kv_layout(op.k_cache, op.pages);
  const std::int64_t group = n_heads / layout.n_kv_heads;
  const std::int64_t chunks = head_chunks(group, kSplitHeads);
  const int splits = attention_splits(op, on.n_sms);
  const std::int64_t width = (head_dim + 7) / 8 * 8;
  auto* values = reinterpret_cast<float*>(on.workspace);
  constexpr double kLog2e = 1.4426950408889634;
  const SplitArgs args = {
      .out = op.out.f32(),
      .lse = op.lse.f32(),
      .q = op.q.f32(),
      .k_cache = op.k_cache.data,
      .v_cache = op.v_cache.data,
      .pos = op.pos.i32(),
      .seq = op.seq.i32(),
      .pages = op.pages.i32(),
      .values = reinterpret_cast<float4*>(values),
      .softmax = reinterpret_cast<float2*>(values + n_tokens * n_heads * splits * width),
      .counters = on.counters,
      .layout = layout,
      .scale = static_cast<float>(op.scale * kLog2e),
      .n_heads = static_cast<int>(n_heads),
      .group = static_cast<int>(group),
      .chunks = static_cast<int>(chunks),
      .chunk_heads = static_cast<int>((group + chunks - 1) / chunks),
  };
  const dim3 grid(static_cast<unsigned>(n_tokens),
                  static_cast<unsigned>(layout.n_kv_heads * chunks), static_cast<unsigned>(splits));
  if (op.k_cache.dtype == DType::kF16) {
    start<__half>(args, grid, on);
  } else {
    start<float>(args, grid, on);
  }
}

}  // namespace

void launch(const Attention& op, const Launch& on) {
  if (op.q.shape[0] == 0) return;
  if (uses_prefill_tiles(op) && !on.exact) {
    launch_prefill_tiles(op, on);
  } else {
    launch_splits(op, on);
  }
}

}  // namespace qwen::cuda
