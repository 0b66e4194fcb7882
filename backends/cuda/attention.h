// How Attention is run: what the host decides from the shapes of the op alone.
#pragma once

#include <cstdint>

#include "backends/cuda/launch.h"
#include "core/contract.h"
#include "core/kv_cache.h"
#include "core/ops.h"

namespace qwen::cuda {

// Keys of a page for which the kernels are compiled; other page sizes take the general kernel.
inline constexpr int kAttentionPage = static_cast<int>(KvCache::kPageTokens);

// Query heads of a key/value head that one block of the split kernel serves: 5 to 8 in Qwen2.5.
inline constexpr std::int64_t kSplitHeads = 8;

// Whether the op runs on tensor cores (attention_prefill.cu); not with Launch::exact, since
// probabilities are rounded to F16 there.
bool uses_prefill_tiles(const Attention& op);

// Blocks among which the split kernel (attention.cu) deals the pages of one token and key/value
// head. At most 64.
int attention_splits(const Attention& op, int n_sms);

// Blocks that share the query heads of one key/value head, `per_block` heads or fewer to each.
constexpr std::int64_t head_chunks(std::int64_t group, std::int64_t per_block) {
  return (group + per_block - 1) / per_block;
}

// How the kernel that the op takes rounds. Does not look at the data.
Contract attention_contract(const Attention& op, const Launch& on);

// attention_prefill.cu; the op satisfies uses_prefill_tiles().
void launch_prefill_tiles(const Attention& op, const Launch& on);

}  // namespace qwen::cuda
