#include "backends/cuda/attention.h"

namespace qwen::cuda {

Contract attention_contract(const Attention& op, bool exact) {
  const std::int64_t head_dim = op.q.shape[2];
  // The longest a sequence can be: the positions themselves are on the device.
  const std::int64_t kv_len = op.pages.shape[1] * op.k_cache.shape[2];
  const std::int64_t n_pages = op.pages.shape[1];
  if (exact || !uses_prefill_tiles(op)) {
    // A score: at most a chain of all dimensions. Values: an addition per key and a rescaling per
    // tile of keys, and the merges of warps and splits.
    return {.sum_depth = head_dim, .value_sum_depth = kv_len + 4 * n_pages + 70};
  }
  // MMAs of 16 terms, each of up to 19 units (gemm.cu, gemv_contract()); q is split in two halves,
  // probabilities are rounded to F16.
  return {.sum_depth = 2 * 19 * ((head_dim + 15) / 16) + 4,
          .value_sum_depth = 19 * ((kv_len + 15) / 16) + 4 * n_pages + 4,
          .truncates = true,
          .input_unit = 0x1p-22,
          .probability_unit = 0x1p-11};
}

}  // namespace qwen::cuda
