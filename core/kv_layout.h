// Where an element of the paged key/value cache lies. This is the only place in the project that
// knows a stride of the cache; every backend, kernel and check goes through kv_offset.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/tensor.h"

namespace qwen {

// Page sizes are multiples of this: the keys of a page fill whole vectors of any backend.
inline constexpr std::int64_t kPageTokensMultiple = 16;

// The numbers of one layer's cache (n_pages, n_kv_heads, page_tokens, head_dim) and of the page
// table (n_seqs, pages_per_seq).
struct KvLayout {
  std::int64_t n_kv_heads = 0;
  std::int64_t page_tokens = 0;
  std::int64_t head_dim = 0;
  std::int64_t pages_per_seq = 0;
};

inline KvLayout kv_layout(const Tensor& cache, const Tensor& pages) {
  return {cache.shape[1], cache.shape[2], cache.shape[3], pages.shape[1]};
}

// Element index of (seq, kv_head, pos, d) within one layer's K or V tensor. `page_table` is the
// (n_seqs, pages_per_seq) table of page numbers. The head_dim elements of one (seq, kv_head, pos)
// are contiguous, and so are the positions of one page and head.
constexpr std::int64_t kv_offset(const KvLayout& l, const std::int32_t* page_table,
                                 std::int64_t seq, std::int64_t kv_head, std::int64_t pos,
                                 std::int64_t d) {
  const std::int64_t page = page_table[seq * l.pages_per_seq + pos / l.page_tokens];
  return ((page * l.n_kv_heads + kv_head) * l.page_tokens + pos % l.page_tokens) * l.head_dim + d;
}

// Element `i`, a kv_offset, of a cache tensor (F32 or F16) in host memory.
inline float cache_value(const Tensor& cache, std::int64_t i) {
  return cache.dtype == DType::kF32 ? cache.as<float>()[i]
                                    : f16_to_f32(cache.as<std::uint16_t>()[i]);
}
// Rounds to the cache's type.
inline void store_cache_value(const Tensor& cache, std::int64_t i, float value) {
  if (cache.dtype == DType::kF32) {
    cache.as<float>()[i] = value;
  } else {
    cache.as<std::uint16_t>()[i] = f32_to_f16(value);
  }
}

}  // namespace qwen
