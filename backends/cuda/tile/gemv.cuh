// A matrix times up to 8 tokens, straight from the weights' blocks: out[t][r] = sum_c w[r][c]
// x[t][c].
//
// A block takes tiles of 8 weight rows; its 7 or 16 warps share the columns, each a contiguous
// range of chunks, and their sums are added in the order of the warps. The tokens are staged once
// per block in shared memory (dot.cuh), multiplied by the gain of a norm if there is one; 1 / rms
// is applied to the sums.
// Bound: the bytes of the weights. In flight per warp: two batches of gemv_batch() chunks of 8
// rows.
//
// A Job says which rows make a tile and what becomes of their sums:
//   n_tiles, n_cols, n_tokens, x (n_tokens, n_cols), gain (n_cols) or null, eps
//   kFewTiles: the tiles may be few, so that many columns are worth many warps
//   weights(tile, row), row(tile, row)                for row 0-7 of the tile
//   prepare(tile, token, row) -> State                before the sums are there
//   finish(state, tile, token, row, sum, partner)     partner: the sum of row ^ 4
#pragma once

#include "backends/cuda/tile/dot.cuh"
#include "backends/cuda/tile/rms.cuh"

namespace qwen::cuda::tile {

// Warps of a block: 7, which 896 columns fill with 4 chunks each, or 16 where the columns are many
// and the tiles few, to have more in flight.
constexpr int kFewWarps = 7;
constexpr int kManyWarps = 16;
constexpr int kManyColumns = 2048;
constexpr int gemv_warps(int n_cols) { return n_cols >= kManyColumns ? kManyWarps : kFewWarps; }
// Chunks of a warp's batch and blocks per multiprocessor. 4,864 columns are 9.5 chunks for each of
// 16 warps: two batches of 5.
template <class Format, int kWarps>
constexpr int gemv_batch() {
  return kWarps == kManyWarps ? Format::kBatch + 1 : Format::kBatch;
}
template <class Format, int kWarps>
constexpr int gemv_blocks_per_sm() {
  return kWarps == kManyWarps ? 1 : Format::kBlocksPerSm;
}

// Shared memory of a block: the tokens' halves and, for formats with a minimum, their sums.
constexpr std::size_t gemv_shared_bytes(int n_tokens, int n_cols, bool has_min) {
  const std::size_t stride = token_stride(n_cols);
  return n_tokens *
         (2 * stride * sizeof(std::uint16_t) + (has_min ? stride / 16 * sizeof(float) : 0));
}

// Where columns k..k+3 of a token go (k a multiple of 4).
template <bool kPermuted>
__device__ inline int staged_position(int k) {
  if constexpr (!kPermuted) return k;
  const int quarter = k % 32 / 4;  // 0-3: low elements of lane `quarter`, 4-7: high
  return k / 32 * 32 + 8 * (quarter % 4) + 4 * (quarter / 4);
}

// Columns k..k+3 of a row; zero beyond its end. Past the first-level cache, which may hold what
// stood there before for a launch that did not wait (Company).
__device__ inline float4 load_columns(const float* row, int k, int n_cols) {
  if (n_cols % 4 == 0 && k < n_cols) return __ldcg(reinterpret_cast<const float4*>(row + k));
  float4 v{0, 0, 0, 0};
  if (k < n_cols) v.x = __ldcg(row + k);
  if (k + 1 < n_cols) v.y = __ldcg(row + k + 1);
  if (k + 2 < n_cols) v.z = __ldcg(row + k + 2);
  if (k + 3 < n_cols) v.w = __ldcg(row + k + 3);
  return v;
}

// Splits the tokens into `shared`; squares[token][warp] get the sums of squares of x.
template <int kWarps, bool kPermuted, class Job>
__device__ inline void stage_tokens(const Job& job, __half* shared, int stride,
                                    float (*squares)[kWarps]) {
  const int n_chunks = (job.n_cols + 31) / 32;
  for (int token = 0; token < job.n_tokens; ++token) {
    const float* x = job.x + static_cast<std::int64_t>(token) * job.n_cols;
    __half* hi = shared + 2 * token * stride;
    float sum = 0;
    for (int k = 4 * static_cast<int>(threadIdx.x); k < 32 * n_chunks; k += 4 * 32 * kWarps) {
      float4 v = load_columns(x, k, job.n_cols);
      if (job.gain != nullptr) {
        sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        const float4 gain = load_columns(job.gain, k, job.n_cols);
        v = {v.x * gain.x, v.y * gain.y, v.z * gain.z, v.w * gain.w};
      }
      const HiLo a = split(v.x), b = split(v.y), c = split(v.z), d = split(v.w);
      const int at = staged_position<kPermuted>(k);
      *reinterpret_cast<uint2*>(hi + at) = {pack(a.hi, b.hi), pack(c.hi, d.hi)};
      *reinterpret_cast<uint2*>(hi + stride + at) = {pack(a.lo, b.lo), pack(c.lo, d.lo)};
    }
    if (job.gain == nullptr) continue;
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) squares[token][threadIdx.x / 32] = sum;
  }
}

// The sums of each half chunk, times kScale: sums[token][2 * chunk + half].
__device__ inline void sum_half_chunks(const __half* shared, int stride, int n_tokens,
                                       float* sums) {
  const int n_halves = stride / 16;
  for (int n = static_cast<int>(threadIdx.x); n < n_tokens * n_halves;
       n += static_cast<int>(blockDim.x)) {
    const __half* hi = shared + 2 * (n / n_halves) * stride + n % n_halves / 2 * 32 + n % 2 * 4;
    float sum = 0;
    for (int t = 0; t < 4; ++t) {
      for (int i = 0; i < 4; ++i) {
        sum += __half2float(hi[8 * t + i]) + __half2float(hi[stride + 8 * t + i]) / kLoScale;
      }
    }
    sums[n] = sum;
  }
}

// Launches that read the same inputs and not each other's results run side by side: the one that
// leads lets the next start as soon as the inputs are there; one that follows need not wait for
// them, but ends only after the one before it, so that who waits for the last waits for all. A
// launch that follows comes directly after one that leads or follows, on the same stream. What it
// reads besides x (positions, pages) must have been written before the kernel that made x.
enum class Company { kAlone, kLeads, kFollows };

template <class Format, int kWarps, class Job>
__global__ void __launch_bounds__(32 * kWarps, gemv_blocks_per_sm<Format, kWarps>())
    gemv(const __grid_constant__ Job job, Company company) {
  constexpr int kBatch = gemv_batch<Format, kWarps>();
  extern __shared__ uint4 dynamic_shared[];
  __shared__ float partial[2][kWarps][kTokens * kRows];
  __shared__ float squares[kTokens][kWarps];
  auto* tokens = reinterpret_cast<__half*>(dynamic_shared);
  const int stride = token_stride(job.n_cols);
  auto* sums = reinterpret_cast<float*>(tokens + 2 * job.n_tokens * stride);

  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int i = lane / 4;  // weight row of this lane's B, token of its C
  const int t = lane % 4;
  const int n_chunks = (job.n_cols + 31) / 32;
  const int per_warp = (n_chunks + kWarps - 1) / kWarps;
  const int first = warp * per_warp;
  const int end = min(first + per_warp, n_chunks);
  const int n_batches = (per_warp + kBatch - 1) / kBatch;

  if (company != Company::kLeads) let_next_start();
  // Two batches are on their way from the start, and then always the next while one is computed.
  using Batch = typename Format::Raw[kBatch];
  struct At {
    int tile, batch;
  };
  const auto next = [&](At at) {
    return at.batch + 1 < n_batches ? At{at.tile, at.batch + 1}
                                    : At{at.tile + static_cast<int>(gridDim.x), 0};
  };
  const auto load = [&](Batch& to, At at) {
    if (at.tile >= job.n_tiles) return;
    const Weights& w = job.weights(at.tile, i);
    const std::int64_t row = job.row(at.tile, i);
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int chunk = first + at.batch * kBatch + b;
      if (chunk < end) to[b] = Format::load(w, row, chunk, t);
    }
  };
  At at{static_cast<int>(blockIdx.x), 0};
  Batch even, odd;
  load(even, at);
  load(odd, next(at));
  if (company != Company::kFollows) wait_for_inputs();
  if (company == Company::kLeads) let_next_start();
  stage_tokens<kWarps, Format::kPermuted>(job, tokens, stride, squares);

  // The threads that finish a tile: one per (token, row).
  const int token = static_cast<int>(threadIdx.x) / kRows;
  const int row = static_cast<int>(threadIdx.x) % kRows;
  const bool finishes = threadIdx.x < kTokens * kRows;
  typename Job::State state{};
  if (finishes && token < job.n_tokens)
    state = job.prepare(static_cast<int>(blockIdx.x), token, row);
  __syncthreads();
  if constexpr (Format::kHasMin) {
    sum_half_chunks(tokens, stride, job.n_tokens, sums);
    __syncthreads();
  }
  float scale = 1;
  if (finishes && token < job.n_tokens && job.gain != nullptr) {
    float sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += squares[token][w];
    scale = inverse_rms(sum, job.n_cols, job.eps);
  }

  const Tokens x{tokens, stride, job.n_tokens};
  const float* my_sums = sums + min(i, job.n_tokens - 1) * (stride / 16);
  int buffer = 0;
  float acc[Format::kAccumulators] = {};
  const auto finish_tile = [&] {
    float a = 0, b = 0;
    Format::finish(acc, a, b);
    *reinterpret_cast<float2*>(&partial[buffer][warp][i * kRows + 2 * t]) = {a, b};
    __syncthreads();
    if (finishes) {
      float sum = 0;
      for (int w = 0; w < kWarps; ++w) sum += partial[buffer][w][threadIdx.x];
      sum *= scale;
      const float partner = __shfl_xor_sync(kAllLanes, sum, 4);
      if (token < job.n_tokens) {
        if (at.tile != static_cast<int>(blockIdx.x)) state = job.prepare(at.tile, token, row);
        job.finish(state, at.tile, token, row, sum, partner);
      }
    }
    buffer ^= 1;
    for (float& sum : acc) sum = 0;
  };
  const auto step = [&](Batch& batch) {
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int chunk = first + at.batch * kBatch + b;
      if (chunk >= end) continue;
      const uint4 hi = fragment(x, i, 0, chunk, t);
      const uint4 lo = fragment(x, i, 1, chunk, t);
      Format::step(acc, batch[b], hi, lo, chunk, t, my_sums + 2 * chunk);
    }
    load(batch, next(next(at)));
    if (at.batch + 1 == n_batches) finish_tile();
    at = next(at);
  };
  while (at.tile < job.n_tiles) {
    step(even);
    if (at.tile < job.n_tiles) step(odd);
  }
  if (company == Company::kFollows) wait_for_inputs();
}

}  // namespace qwen::cuda::tile
