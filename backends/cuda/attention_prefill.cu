// Attention on tensor cores: out = sum_j softmax(scale * q.k_j) v_j, lse its log-sum-exp. (Dao
// 2023, arXiv:2307.08691) q, out F32 (n_tokens, n_heads, head_dim); cache F16, pages of 64 keys.
// Block: 16 (or a multiple) consecutive tokens x at most 7 query heads of one key/value head; warp:
// 16 tokens of one head. Keys and values of a page pass through shared memory, double buffered;
// tokens of several sequences are served sequence by sequence, the others' scores masked.
// Bound: tensor cores, 3 products of 2 * head_dim flop per query head and visible key.
// Scores FP32-grade (attention_mma.cuh); weights rounded to F16, summed in FP32 before that.
// head_dim 64, 80, 96, 128. An infinite value of a later token in the tile is not masked.
#include <cuda_fp16.h>

#include "backends/cuda/attention.h"
#include "backends/cuda/check.h"
#include "backends/cuda/launch_kernel.h"
#include "backends/cuda/tile/attention_mma.cuh"
#include "core/kv_layout.h"

namespace qwen::cuda {
namespace {

static_assert(kAttentionPage == tile::kTileKeys);

// Two blocks of 7 warps leave 128 registers per thread, for head_dim 64 all but 16 of what it wants
// (a dozen reloads per page of 640 instructions); 7 because the groups of Qwen2.5 are 5 to 8, and 8
// makes two blocks of 4.
constexpr int kMaxWarps = 7;

struct PrefillArgs {
  float* out;                 // (n_tokens, n_heads, head_dim)
  float* lse;                 // (n_tokens, n_heads)
  const float* q;             // (n_tokens, n_heads, head_dim)
  const __half* k_cache;      // (n_pages, n_kv_heads, 64, head_dim)
  const __half* v_cache;      // as k_cache
  const std::int32_t* pos;    // (n_tokens)
  const std::int32_t* seq;    // (n_tokens)
  const std::int32_t* pages;  // (n_seqs, pages_per_seq)
  KvLayout layout;
  float scale;  // scale * log2(e) / tile::kScale
  int n_tokens;
  int n_heads;
  int group;        // query heads per key/value head
  int chunks;       // blocks per group
  int chunk_heads;  // query heads per block, of the last one perhaps fewer
  int block_tokens;
  int n_sms;
};

// Consecutive tokens of one sequence, and the largest of their positions.
struct Run {
  int begin;
  int end;
  int seq;
  int last_pos;
};

// The tokens of `begin`'s sequence from there on, up to `limit`. For whole warps.
__device__ Run find_run(const PrefillArgs& a, int begin, int limit, int lane) {
  Run run = {begin, begin, a.seq[begin], 0};
  for (;;) {
    const int token = run.end + lane;
    const bool same = token < limit && a.seq[token] == run.seq;
    const int differing = __ffs(static_cast<int>(~__ballot_sync(tile::kAllLanes, same)));
    const int n = differing == 0 ? 32 : differing - 1;
    const int pos = lane < n ? a.pos[token] : 0;
    run.last_pos = max(run.last_pos, __reduce_max_sync(tile::kAllLanes, pos));
    run.end += n;
    if (n < 32) return run;
  }
}

// Starts the copies of one page's keys or values; keys after the run's last become zeros, since
// their slots may hold anything and zero times not-a-number is not zero.
template <int kHeadDim>
__device__ void copy_page(__half* to, const __half* from, int n_present) {
  constexpr int kVectors = kHeadDim / 8;
  for (int i = static_cast<int>(threadIdx.x); i < tile::kTileKeys * kVectors;
       i += static_cast<int>(blockDim.x)) {
    const int key = i / kVectors;
    tile::copy_async(to + key * tile::KeyTile<kHeadDim>::kStride + i % kVectors * 8, from + i * 8,
                     key < n_present);
  }
}

// The place of a block in the order of work, longest first. If all blocks fit the device at once,
// two to an SM, the second comes where the first is longest: then let it be the shortest.
__device__ int work_rank(int block, int n_blocks, int n_sms) {
  if (block < n_sms || n_blocks > 2 * n_sms) return block;
  return n_blocks - 1 - (block - n_sms);
}

template <int kHeadDim>
__global__ void __launch_bounds__(32 * kMaxWarps, kHeadDim == 64 ? 2 : 1)
    prefill_tiles(const PrefillArgs a) {
  using Tile = tile::KeyTile<kHeadDim>;
  extern __shared__ uint4 shared[];  // [2 buffers][keys, values][Tile]
  __half* const buffers = reinterpret_cast<__half*>(shared);

  KvLayout layout = a.layout;
  layout.page_tokens = tile::kTileKeys;
  layout.head_dim = kHeadDim;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;

  // Later tokens of a prompt see more keys.
  const int rank = work_rank(static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x), a.n_sms);
  const int columns = static_cast<int>(layout.n_kv_heads) * a.chunks;
  const int n_tiles = (a.n_tokens + a.block_tokens - 1) / a.block_tokens;
  const int tile_begin = (n_tiles - 1 - rank / columns) * a.block_tokens;
  const int tile_end = min(a.n_tokens, tile_begin + a.block_tokens);
  const int kv_head = rank % columns / a.chunks;
  const int chunk = rank % columns % a.chunks;

  const int head_in_group = chunk * a.chunk_heads + warp % a.chunk_heads;
  const int head = kv_head * a.group + head_in_group;
  const int first_token = tile_begin + warp / a.chunk_heads * tile::kTileRows + lane / 4;
  // The end of the tokens that this warp serves: none if it has no head.
  const int row_end = head_in_group < a.group ? tile_end : 0;
  // The lane's rows r = 0, 1 are tokens first_token + 8 * r.
  const auto row_offset = [&](int r) {
    return (static_cast<std::int64_t>(first_token + 8 * r) * a.n_heads + head) * kHeadDim;
  };

  const auto copy = [&](int buffer, const Run& run, int page) {
    const std::int64_t from = kv_offset(layout, a.pages, run.seq, kv_head,
                                        static_cast<std::int64_t>(page) * tile::kTileKeys, 0);
    const int n_present = run.last_pos + 1 - page * tile::kTileKeys;
    __half* const keys = buffers + buffer * 2 * Tile::kElements;
    copy_page<kHeadDim>(keys, a.k_cache + from, n_present);
    copy_page<kHeadDim>(keys + Tile::kElements, a.v_cache + from, n_present);
  };

  // The last key of the run's first page that a row sees, negative if it sees none of the run's
  // keys.
  const auto last_key = [&](const Run& run, int r) {
    const int token = first_token + 8 * r;
    return token >= run.begin && token < min(run.end, row_end) ? a.pos[token] : -1;
  };

  Run run = find_run(a, tile_begin, tile_end, lane);
  int page = 0;
  int buffer = 0;
  copy(buffer, run, page);

  tile::QueryTile<kHeadDim> q;
  const float* query_rows[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    query_rows[r] = first_token + 8 * r < row_end ? a.q + row_offset(r) : nullptr;
  }
  tile::load_queries(q, query_rows, lane);
  int limit[2] = {last_key(run, 0), last_key(run, 1)};
  tile::RowSoftmax softmax;
  float acc[kHeadDim / 8][4] = {};
  for (;;) {
    tile::wait_for_copies();
    __syncthreads();  // the page is there, and no warp reads the other buffer any more

    // Start on the next page, of the next run after the last of this one.
    int next_page = page + 1;
    if (next_page * tile::kTileKeys > run.last_pos) {
      next_page = run.end < tile_end ? 0 : -1;
      if (next_page == 0) run = find_run(a, run.end, tile_end, lane);
    }
    if (next_page >= 0) copy(buffer ^ 1, run, next_page);

    if (__any_sync(tile::kAllLanes, max(limit[0], limit[1]) >= 0)) {
      const __half* const keys = buffers + buffer * 2 * Tile::kElements;
      float score[tile::kTileKeys / 8][4];
      tile::score_tile(score, q, keys, lane);
      if (__any_sync(tile::kAllLanes, min(limit[0], limit[1]) < tile::kTileKeys - 1)) {
        tile::mask_tile(score, limit, lane);
      }
      tile::weigh_tile<kHeadDim>(softmax, score, a.scale, acc);
      tile::value_tile<kHeadDim>(acc, score, keys + Tile::kElements, lane);
    }
    if (next_page < 0) break;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      limit[r] = next_page == 0 ? last_key(run, r) : limit[r] - tile::kTileKeys;
    }
    page = next_page;
    buffer ^= 1;
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum = softmax.sum[r];
    sum += __shfl_xor_sync(tile::kAllLanes, sum, 1);
    sum += __shfl_xor_sync(tile::kAllLanes, sum, 2);
    if (first_token + 8 * r >= row_end) continue;
    const float scale = 1.0f / sum;
    float* const to = a.out + row_offset(r) + 2 * (lane % 4);
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
      *reinterpret_cast<float2*>(to + 8 * n) =
          make_float2(acc[n][2 * r] * scale, acc[n][2 * r + 1] * scale);
    }
    if (lane % 4 == 0) a.lse[row_offset(r) / kHeadDim] = tile::log_sum_exp(softmax.bias[r], sum);
  }
}

template <int kHeadDim>
void start(const PrefillArgs& args, unsigned n_blocks, unsigned n_threads, const Launch& on) {
  constexpr int kSharedBytes =
      4 * tile::KeyTile<kHeadDim>::kElements * static_cast<int>(sizeof(__half));
  check(cudaFuncSetAttribute(prefill_tiles<kHeadDim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             kSharedBytes));
  launch_kernel(prefill_tiles<kHeadDim>, Start::kInOrder, n_blocks, n_threads, kSharedBytes, on,
                args);
}

}  // namespace

void launch_prefill_tiles(const Attention& op, const Launch& on) {
  const std::int64_t n_tokens = op.q.shape[0];
  const std::int64_t n_heads = op.q.shape[1];
  const KvLayout layout = kv_layout(op.k_cache, op.pages);
  const std::int64_t group = n_heads / layout.n_kv_heads;
  const std::int64_t chunks = head_chunks(group, kMaxWarps);
  const std::int64_t chunk_heads = (group + chunks - 1) / chunks;
  // Small groups take more tokens instead, so that their blocks have about as many warps too.
  const std::int64_t row_tiles = kMaxWarps / chunk_heads;
  const std::int64_t block_tokens = tile::kTileRows * row_tiles;
  constexpr double kLog2e = 1.4426950408889634;
  const PrefillArgs args = {
      .out = op.out.f32(),
      .lse = op.lse.f32(),
      .q = op.q.f32(),
      .k_cache = reinterpret_cast<const __half*>(op.k_cache.data),
      .v_cache = reinterpret_cast<const __half*>(op.v_cache.data),
      .pos = op.pos.i32(),
      .seq = op.seq.i32(),
      .pages = op.pages.i32(),
      .layout = layout,
      .scale = static_cast<float>(op.scale * kLog2e / tile::kScale),
      .n_tokens = static_cast<int>(n_tokens),
      .n_heads = static_cast<int>(n_heads),
      .group = static_cast<int>(group),
      .chunks = static_cast<int>(chunks),
      .chunk_heads = static_cast<int>(chunk_heads),
      .block_tokens = static_cast<int>(block_tokens),
      .n_sms = on.n_sms,
  };
  const auto n_blocks = static_cast<unsigned>((n_tokens + block_tokens - 1) / block_tokens *
                                              layout.n_kv_heads * chunks);
  const auto n_threads = static_cast<unsigned>(32 * chunk_heads * row_tiles);
  switch (layout.head_dim) {
    case 64:
      return start<64>(args, n_blocks, n_threads, on);
    case 80:
      return start<80>(args, n_blocks, n_threads, on);
    case 96:
      return start<96>(args, n_blocks, n_threads, on);
    default:
      return start<128>(args, n_blocks, n_threads, on);
  }
}

}  // namespace qwen::cuda
