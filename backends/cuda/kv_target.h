// The cache of a KvWrite op as its kernels see it.
#pragma once

#include "backends/cuda/tile/kv_store.cuh"
#include "core/ops.h"

namespace qwen::cuda {

inline tile::KvTarget kv_target(const KvWrite& op) {
  return {op.k_cache.data,
          op.v_cache.data,
          op.k_center.f32(),
          op.k_cache.dtype == DType::kF16,
          kv_layout(op.k_cache, op.pages),
          op.pages.i32(),
          op.pos.i32(),
          op.seq.i32()};
}

}  // namespace qwen::cuda
