// Sample (core/sampler.h): logits (n_rows, n_vocab) F32 -> out (n_rows) I32, logit (n_rows) F32.
// Kernel 1, grid (slices, n_rows): a block finds the first candidate (rank order) of its slice.
// Kernel 2, same grid: the k-th of those bounds the k-th of all from below, so what reaches it is a
// short list, from which the row's last block draws, or else by the ranks' digits: exact, slow.
// Greedy: block 0 reduces the maxima. Sums in FP64 and in a fixed order; the list is sorted.
// Bytes: 5 per logit, and again (from L2) in slices with candidates; bound: two launches' latency.
// Limits: rows of different sequences (`seen`), at most 32,768 of them (counters).
#include <algorithm>

#include "backends/cuda/launch_kernel.h"
#include "backends/cuda/tile/reduce.cuh"
#include "backends/cuda/tile/sample_rank.cuh"
#include "core/error.h"

namespace qwen::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
// About one block per multiprocessor for a single row; 8 rows of it fill 132 multiprocessors with 8
// blocks each. More rows: larger slices, and fewer maxima for every block to compare.
constexpr int kMaxSlices = 128;
constexpr int kManyRowsSlices = 64;
constexpr int kManyRows = 8;
static_assert(kMaxSlices <= kThreads);
// If top_k exceeds the slices the list is cut at the maximum of rank 31/32 of them, without top_k
// at 7/8. In random order that leaves 128 ln 32 = 444 and 128 ln 8 = 266 candidates.
constexpr int kListCapacity = 1024;
// Loads in flight per thread: 151,936 / (128 slices * 256 threads) = 4.6.
constexpr int kBatch = 5;
// Counters of a row: blocks that arrived, candidates listed.
constexpr int kRowCounters = 2;
static_assert(kRowCounters * 32768 <= kCounters);

// One launch: the tensors and the workspace.
struct Task {
  std::int32_t* out;
  float* logit;
  std::int8_t* seen;
  const float* logits;
  const std::int32_t* seq;
  const std::int32_t* pos;
  const SampleParams* params;
  int n_vocab;
  Rank* maxima;        // (n_rows, kMaxSlices)
  double* sums;        // (n_rows, kMaxSlices): weights of the slices
  Rank* list;          // (n_rows, kListCapacity), in no order
  unsigned* counters;  // (n_rows, kRowCounters)
};

constexpr std::size_t kRowBytes =
    kMaxSlices * (sizeof(Rank) + sizeof(double)) + kListCapacity * sizeof(Rank);

int slices(std::int64_t n_rows, std::int64_t n_vocab) {
  const std::int64_t most = n_rows <= kManyRows ? kMaxSlices : kManyRowsSlices;
  return static_cast<int>(std::clamp<std::int64_t>((n_vocab + kThreads - 1) / kThreads, 1, most));
}

struct Row {
  const float* logits;
  const std::int8_t* seen;
  float penalty;
  int n_vocab;

  __device__ Rank rank(int id) const {
    return rank_of(penalised(logits[id], seen[id] != 0, penalty), id);
  }
};

__device__ Row row_of(const Task& task, int row, int seq) {
  return {task.logits + std::int64_t{row} * task.n_vocab,
          task.seen + std::int64_t{seq} * task.n_vocab, task.params[seq].repeat_penalty,
          task.n_vocab};
}

// Calls visit(rank) for the candidates of this thread in a slice. Slices are interleaved in pieces
// of one warp, so that neighbouring ids, which are often alike, fall into different ones.
template <class Visit>
__device__ void for_slice(const Row& row, int slice, int n_slices, const Visit& visit) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int step = n_slices * kWarps * kWarp;
  int first = (slice + warp * n_slices) * kWarp + lane;
  for (; first < row.n_vocab; first += kBatch * step) {
    float logit[kBatch];
    bool seen[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int id = std::min(first + i * step, row.n_vocab - 1);  // no branch between the loads
      logit[i] = row.logits[id];
      seen[i] = row.seen[id] != 0;
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int id = first + i * step;
      if (id >= row.n_vocab) break;
      const Rank rank = rank_of(penalised(logit[i], seen[i], row.penalty), id);
      if (rank != 0) visit(rank);
    }
  }
}

// The largest value of the block, in every thread. Once per kernel.
__device__ Rank block_max(Rank value, Rank (&of_warps)[kWarps]) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = std::max(value, __shfl_xor_sync(tile::kAllLanes, value, offset));
  }
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = value;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) value = std::max(value, of_warps[w]);
  return value;
}

// The sum over the block, in a fixed order, in every thread.
__device__ double block_sum(double value, double (&of_warps)[kWarps]) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(tile::kAllLanes, value, offset);
  }
  __syncthreads();  // the previous call's reads are over
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = value;
  __syncthreads();
  double sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += of_warps[w];
  return sum;
}

__global__ void __launch_bounds__(kThreads) slice_maxima(Task task) {
  __shared__ Rank of_warps[kWarps];
  tile::let_next_start();
  tile::wait_for_inputs();
  const int row = static_cast<int>(blockIdx.y);
  const int slice = static_cast<int>(blockIdx.x);
  Rank best = 0;
  for_slice(row_of(task, row, task.seq[row]), slice, static_cast<int>(gridDim.x),
            [&](Rank rank) { best = std::max(best, rank); });
  best = block_max(best, of_warps);
  if (threadIdx.x == 0) task.maxima[row * kMaxSlices + slice] = best;
}

struct Shared {
  Rank maxima[kMaxSlices];
  Rank top;        // the first of all candidates; 0: there is none
  Rank threshold;  // candidates from here on are listed; 1: all
  unsigned n_listed;
  bool last_block;
  int chosen;  // index in the sorted list
  Rank max_of_warps[kWarps];
  double sum_of_warps[kWarps];
  double digit_sums[kDigits];
  union {
    struct {
      Rank unsorted[kListCapacity];
      Rank sorted[kListCapacity];
      double weights[kListCapacity];
    } list;
    double columns[kDigits][kThreads];  // sums per digit and thread: no atomics, a fixed order
  };
};

struct Found {
  Rank rank;
  double through;  // the running sum with it
};

// The first candidate not after `last` at which the running sum of measure(rank) >= 0 comes to
// `goal`. Reads the row once per digit; the block's threads all get the result.
template <class Measure>
__device__ Found descend(const Row& row, Rank last, Goal goal, Shared& s, const Measure& measure) {
  const int thread = static_cast<int>(threadIdx.x);
  Rank prefix = 0;
  double above = 0;
  double through = 0;
  for (int shift = 64 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    if (is_padding(shift, row.n_vocab)) {
      prefix = (prefix << kDigitBits) | (kDigits - 1);
      continue;
    }
    for (int digit = 0; digit < kDigits; ++digit) s.columns[digit][thread] = 0;
#pragma unroll 4
    for (int id = thread; id < row.n_vocab; id += kThreads) {
      const Rank rank = row.rank(id);
      if (rank < last || (rank >> shift >> kDigitBits) != prefix) continue;
      s.columns[(rank >> shift) & (kDigits - 1)][thread] += measure(rank);
    }
    __syncthreads();
    for (int digit = thread / kWarp; digit < kDigits; digit += kWarps) {
      double sum = 0;
      for (int t = thread % kWarp; t < kThreads; t += kWarp) sum += s.columns[digit][t];
      for (int offset = kWarp / 2; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(tile::kAllLanes, sum, offset);
      }
      if (thread % kWarp == 0) s.digit_sums[digit] = sum;
    }
    __syncthreads();  // the columns have been read as well
    const Digit digit = pick_digit(s.digit_sums, above, goal);
    prefix = (prefix << kDigitBits) | static_cast<Rank>(digit.value);
    above = digit.above;
    through = digit.through;
  }
  return {prefix, through};
}

// Steps 3 to 6 of sampler.h without a list. limit: top_k, 0 for none.
__device__ Rank choose_slowly(const Row& row, const SampleParams& params, int limit, double uniform,
                              Shared& s) {
  const Rank top = s.top;
  const auto weight = [&](Rank rank) {
    const double w = weight_of(rank, top, params.temp);
    return w < params.min_p ? 0.0 : w;
  };
  Rank last = 1;
  if (limit > 0) {
    last =
        descend(row, last, {static_cast<double>(limit), false}, s, [](Rank) { return 1.0; }).rank;
  }
  double kept = 0;
  for (int id = static_cast<int>(threadIdx.x); id < row.n_vocab; id += kThreads) {
    const Rank rank = row.rank(id);
    if (rank >= last) kept += weight(rank);
  }
  kept = block_sum(kept, s.sum_of_warps);
  if (params.top_p < 1) {
    const Found end = descend(row, last, {params.top_p * kept, false}, s, weight);
    last = end.rank;
    kept = end.through;
  }
  const Found found = descend(row, last, {uniform * kept, true}, s, weight);
  return found.through > 0 ? found.rank : top;  // no sum: parameters out of their range
}

// Sets s.top and s.threshold from the maxima of the row's slices.
__device__ void find_threshold(const Rank* maxima, int n_slices, int limit, int n_vocab,
                               Shared& s) {
  const int thread = static_cast<int>(threadIdx.x);
  const bool bounds = limit > 0 && limit <= n_slices;  // else it is a guess
  const int k = bounds ? limit : n_slices - n_slices / (limit > 0 ? 32 : 8);
  if (thread < n_slices) s.maxima[thread] = maxima[thread];
  if (thread == 0) {
    s.top = 0;
    s.threshold = 1;
  }
  __syncthreads();
  if (thread < n_slices && s.maxima[thread] != 0) {
    const Rank own = s.maxima[thread];
    int before = 0;
#pragma unroll 8
    for (int i = 0; i < n_slices; ++i) before += s.maxima[i] > own ? 1 : 0;
    if (before == 0) s.top = own;
    if (before == k - 1 && n_vocab > kListCapacity) s.threshold = own;
  }
  __syncthreads();
}

// Whether this block is the last one of its row to come here; s.n_listed is then the list's length,
// and what the others wrote before is visible. Leaves the counters at zero.
__device__ bool arrives_last(unsigned* counters, Shared& s) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    s.last_block = atomicAdd(&counters[0], 1u) == gridDim.x - 1;
    if (s.last_block) {
      __threadfence();
      s.n_listed = atomicExch(&counters[1], 0u);
      counters[0] = 0;
    }
  }
  __syncthreads();
  return s.last_block;
}

// Sorts the list and chooses from it: the rank, or 0 if the list cannot decide.
__device__ Rank choose_from_list(const Rank* list, const SampleParams& params, int limit,
                                 double total, double uniform, Shared& s) {
  const int thread = static_cast<int>(threadIdx.x);
  const int n_listed = static_cast<int>(s.n_listed);
  for (int i = thread; i < n_listed; i += kThreads) s.list.unsorted[i] = __ldcg(&list[i]);
  __syncthreads();
  for (int i = thread; i < n_listed; i += kThreads) {
    const Rank own = s.list.unsorted[i];
    int before = 0;
#pragma unroll 8
    for (int j = 0; j < n_listed; ++j) before += s.list.unsorted[j] > own ? 1 : 0;
    s.list.sorted[before] = own;
    s.list.weights[before] = weight_of(own, s.top, params.temp);
  }
  __syncthreads();
  if (thread == 0) {
    const bool limited = limit > 0 && limit <= n_listed;
    const bool complete = limited || s.threshold == 1;
    s.chosen = limit > 0 && !complete ? -1
                                      : choose_in_list(s.list.weights, limited ? limit : n_listed,
                                                       {complete, total}, params, uniform);
  }
  __syncthreads();
  return s.chosen < 0 ? 0 : s.list.sorted[s.chosen];
}

__device__ void finish(const Task& task, int row, int seq, int id) {
  if (threadIdx.x != 0) return;
  task.out[row] = id;
  task.logit[row] = task.logits[std::int64_t{row} * task.n_vocab + id];
  task.seen[std::int64_t{seq} * task.n_vocab + id] = 1;
}

// At least 3 blocks per multiprocessor: without that number the compiler stays at 64 registers and
// spills.
__global__ void __launch_bounds__(kThreads, 3) choose(Task task) {
  __shared__ Shared s;
  tile::let_next_start();
  tile::wait_for_inputs();
  const int thread = static_cast<int>(threadIdx.x);
  const int row = static_cast<int>(blockIdx.y);
  const int slice = static_cast<int>(blockIdx.x);
  const int n_slices = static_cast<int>(gridDim.x);
  const int seq = task.seq[row];
  const int pos = task.pos[row];
  const SampleParams params = task.params[seq];
  const Rank* maxima = task.maxima + row * kMaxSlices;
  if (params.temp == 0) {
    if (slice != 0) return;
    const Rank top = block_max(thread < n_slices ? maxima[thread] : 0, s.max_of_warps);
    finish(task, row, seq, greedy_id(top));
    return;
  }

  const int limit = params.top_k > 0 && params.top_k < task.n_vocab ? params.top_k : 0;
  find_threshold(maxima, n_slices, limit, task.n_vocab, s);
  if (s.top == 0) {
    if (slice == 0) finish(task, row, seq, 0);
    return;
  }
  const Row candidates = row_of(task, row, seq);
  unsigned* counters = task.counters + row * kRowCounters;
  Rank* list = task.list + std::int64_t{row} * kListCapacity;
  double* sums = task.sums + row * kMaxSlices;
  // The weights that the list leaves out count where no top_k does.
  const bool needs_total = limit == 0 && s.threshold != 1;
  double sum = 0;
  if (needs_total || s.maxima[slice] >= s.threshold) {
    for_slice(candidates, slice, n_slices, [&](Rank rank) {
      if (rank >= s.threshold) {
        const unsigned at = atomicAdd(&counters[1], 1u);
        if (at < kListCapacity) list[at] = rank;
      }
      if (!needs_total) return;
      const double weight = weight_of(rank, s.top, params.temp);
      if (weight >= params.min_p) sum += weight;
    });
  }
  if (needs_total) {
    sum = block_sum(sum, s.sum_of_warps);
    if (thread == 0) sums[slice] = sum;
  }
  if (!arrives_last(counters, s)) return;

  const double uniform = uniform_of(params, pos);
  double total = 0;
  if (needs_total) {
    total = block_sum(thread < n_slices ? __ldcg(&sums[thread]) : 0.0, s.sum_of_warps);
  }
  Rank chosen = 0;
  if (s.n_listed <= kListCapacity) {
    chosen = choose_from_list(list, params, limit, total, uniform, s);
  }  // 0: nobody reads the list any more, whose memory the slow way reuses
  if (chosen == 0) chosen = choose_slowly(candidates, params, limit, uniform, s);
  finish(task, row, seq, id_of(chosen));
}

}  // namespace

std::size_t workspace_bytes(const Sample& op) {
  return static_cast<std::size_t>(op.logits.rows()) * kRowBytes;
}

void launch(const Sample& op, const Launch& on) {
  const std::int64_t n_rows = op.logits.rows();
  const std::int64_t n_vocab = op.logits.cols();
  if (n_rows == 0) return;
  if (n_rows * kRowCounters > kCounters) {
    throw Error({.code = "too_many_rows",
                 .message = "Sample of " + std::to_string(n_rows) + " rows at once, at most " +
                            std::to_string(kCounters / kRowCounters)});
  }
  auto* maxima = reinterpret_cast<Rank*>(on.workspace);
  auto* sums = reinterpret_cast<double*>(maxima + n_rows * kMaxSlices);
  auto* list = reinterpret_cast<Rank*>(sums + n_rows * kMaxSlices);
  const Task task{op.out.i32(),
                  op.logit.f32(),
                  op.seen.as<std::int8_t>(),
                  op.logits.f32(),
                  op.seq.i32(),
                  op.pos.i32(),
                  op.params.as<SampleParams>(),
                  static_cast<int>(n_vocab),
                  maxima,
                  sums,
                  list,
                  on.counters};
  const dim3 grid(slices(n_rows, n_vocab), static_cast<unsigned>(n_rows));
  launch_kernel(slice_maxima, Start::kMayOverlap, grid, kThreads, 0, on, task);
  launch_kernel(choose, Start::kMayOverlap, grid, kThreads, 0, on, task);
}

}  // namespace qwen::cuda
