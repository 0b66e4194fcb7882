// Writing to the key/value cache.
#pragma once

#include <cuda_fp16.h>

#include "core/kv_layout.h"

namespace qwen::cuda::tile {

// The cache of one layer as the kernels that write it see it.
struct KvTarget {
  void* k;
  void* v;
  const float* k_center;  // (n_kv_heads, head_dim)
  bool f16;
  KvLayout layout;
  const std::int32_t* pages;
  const std::int32_t* pos;
  const std::int32_t* seq;
};

__device__ inline void store_cached(void* cache, bool f16, std::int64_t at, float value) {
  if (f16) {
    static_cast<__half*>(cache)[at] = __float2half_rn(value);
  } else {
    static_cast<float*>(cache)[at] = value;
  }
}

// Element (kv_head, d) of the key or value of `token`; of a key, what differs from the center.
__device__ inline void store_kv(const KvTarget& to, bool is_key, int token, int kv_head, int d,
                                float value) {
  const std::int64_t at = kv_offset(to.layout, to.pages, to.seq[token], kv_head, to.pos[token], d);
  if (is_key) value = __fsub_rn(value, to.k_center[kv_head * to.layout.head_dim + d]);
  store_cached(is_key ? to.k : to.v, to.f16, at, value);
}

}  // namespace qwen::cuda::tile
