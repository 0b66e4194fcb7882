#include <algorithm>
#include <cstddef>

#include "backends/cuda/attention.h"
#include "core/kv_layout.h"

namespace qwen::cuda {
namespace {

// Up to here a tile of 16 tokens would be at least half empty, and split keys fill the device
// better than tiles of queries.
constexpr std::int64_t kMaxSplitTokens = 8;

constexpr std::int64_t kMaxSplits = 64;

// Two blocks fit an SM. With three rounds of them the SMs that get one block more than others
// lose little.
constexpr std::int64_t kBlocksPerSm = 6;

struct Shape {
  std::int64_t n_tokens;
  std::int64_t row_blocks;  // blocks that one token needs at least
  std::int64_t pages_per_seq;
};

Shape shape_of(const Attention& op) {
  const std::int64_t n_kv_heads = op.k_cache.shape[1];
  const std::int64_t group = op.q.shape[1] / n_kv_heads;
  return {op.q.shape[0], n_kv_heads * head_chunks(group, kSplitHeads), op.pages.shape[1]};
}

std::int64_t splits(const Shape& shape, std::int64_t n_sms) {
  const std::int64_t blocks = shape.n_tokens * shape.row_blocks;
  if (blocks == 0 || blocks > kCounters) return 1;
  const std::int64_t wanted = (n_sms * kBlocksPerSm + blocks - 1) / blocks;
  return std::clamp<std::int64_t>(wanted, 1, std::min(kMaxSplits, shape.pages_per_seq));
}

}  // namespace

bool uses_prefill_tiles(const Attention& op) {
  const std::int64_t head_dim = op.q.shape[2];
  return !op.decode && op.q.shape[0] > kMaxSplitTokens && op.k_cache.dtype == DType::kF16 &&
         op.k_cache.shape[2] == kAttentionPage &&
         (head_dim == 64 || head_dim == 80 || head_dim == 96 || head_dim == 128);
}

int attention_splits(const Attention& op, int n_sms) {
  return static_cast<int>(splits(shape_of(op), n_sms));
}

// Per token, head and split: the sums of the values, padded to whole vectors of eight, and the
// maximum and sum of the weights. Fewer tokens have more splits: n tokens have less than
// wanted / (n * row_blocks) + 1 of them, and more than one only up to wanted / row_blocks tokens.
std::size_t workspace_bytes(const Attention& op, int n_sms) {
  const Shape shape = shape_of(op);
  const std::int64_t width = (op.q.shape[2] + 7) / 8 * 8;
  const std::int64_t wanted = n_sms * kBlocksPerSm / shape.row_blocks + 1;
  const std::int64_t rows = (wanted + std::min(wanted, shape.n_tokens)) * op.q.shape[1];
  return static_cast<std::size_t>(rows * (width + 2)) * sizeof(float);
}

}  // namespace qwen::cuda
