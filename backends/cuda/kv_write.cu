// Stores keys less their center (n_kv_heads, head_dim) and values, both (n_tokens, n_kv_heads,
// head_dim) FP32, in the paged cache, FP32 or F16 (rounded to nearest). One thread per element, of
// a key and a value.
#include "backends/cuda/elementwise.h"
#include "backends/cuda/kv_target.h"

namespace qwen::cuda {
namespace {

__global__ void kv_write(tile::KvTarget to, const float* k, const float* v, int heads, int head_dim,
                         std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kElementThreads + threadIdx.x;
  if (i >= n) return;
  const int d = static_cast<int>(i % head_dim);
  const int head = static_cast<int>(i / head_dim % heads);
  const int token = static_cast<int>(i / head_dim / heads);
  tile::store_kv(to, true, token, head, d, k[i]);
  tile::store_kv(to, false, token, head, d, v[i]);
}

}  // namespace

void launch(const KvWrite& op, const Launch& on) {
  launch_kernel(kv_write, Start::kInOrder, element_blocks(op.k.size()), kElementThreads, 0, on,
                kv_target(op), op.k.f32(), op.v.f32(), static_cast<int>(op.k.shape[1]),
                static_cast<int>(op.k.shape[2]), op.k.size());
}

}  // namespace qwen::cuda
