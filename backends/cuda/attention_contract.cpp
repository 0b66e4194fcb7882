#include "backends/cuda/attention.h"

namespace qwen::cuda {

Contract attention_contract(const Attention& op, const Launch& on) {
  const std::int64_t head_dim = op.q.shape[2];
  // The longest a sequence can be: the positions themselves are on the device.
  const std::int64_t kv_len = op.pages.shape[1] * op.k_cache.shape[2];
  const std::int64_t n_pages = op.pages.shape[1];
  if (on.exact || !uses_prefill_tiles(op)) {
    // A score: at most a chain of all dimensions. Values: an addition per key and a rescaling per
    // tile of keys, and the merges of warps and splits.
    return {.sum_depth = head_dim, .value_sum_depth = kv_len + 4 * n_pages + 70};
  }
  // q is split in two halves; weights, 2^8 times as large, are rounded to F16.
  return {.sum_depth = 2 * mma_units(head_dim, on) + 4,
          .value_sum_depth = mma_units(kv_len, on) + 4 * n_pages + 4,
          .truncates = true,
          .input_unit = 0x1p-22,
          .probability_unit = 0x1p-11,
          .probability_step = 0x1p-33};
}

}  // namespace qwen::cuda
