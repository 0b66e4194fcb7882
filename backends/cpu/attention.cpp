// Attention, one (block of tokens, key/value head) at a time. All query heads of a key/value head
// share its keys and values; a tile of keys is one page of the cache.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/kernels/prefetch.h"
#include "core/kv_layout.h"

namespace qwen {
namespace {

// Tokens per block: with 7 query heads 112 rows share each tile of keys, enough to hide the tile's
// conversion, and the rows' scores and sums stay in L2.
constexpr std::int64_t kBlockTokens = 16;

}  // namespace

// Consecutive rows of a step that belong to one sequence, their positions rising.
struct CpuBackend::AttentionBlock {
  std::int64_t first_token;
  std::int64_t n_tokens;
};

void CpuBackend::run(const Attention& op) {
  std::vector<AttentionBlock> blocks;
  for (std::int64_t t = 0; t < op.q.shape[0]; ++t) {
    const bool joins = t > 0 && op.seq.i32()[t] == op.seq.i32()[t - 1] &&
                       op.pos.i32()[t] > op.pos.i32()[t - 1] &&
                       blocks.back().n_tokens < kBlockTokens;
    if (joins) {
      ++blocks.back().n_tokens;
    } else {
      blocks.push_back({t, 1});
    }
  }
  const std::int64_t n_kv_heads = op.k_cache.shape[1];
  const std::int64_t n_items = static_cast<std::int64_t>(blocks.size()) * n_kv_heads;
  const std::int64_t page = op.k_cache.shape[2];
  const std::int64_t width =
      (op.q.shape[2] + kernels_->lanes - 1) / kernels_->lanes * kernels_->lanes;
  const std::int64_t rows = kBlockTokens * (op.q.shape[1] / n_kv_heads);
  // q and out rows, scores, one tile of keys (transposed) and of values, max and sum per row.
  reserve_scratch(static_cast<std::size_t>(rows * (2 * width + page + 2) + 2 * page * width));
  pool_.chunks(n_items, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t i = begin; i < end; ++i) {
      attend(op, blocks[i / n_kv_heads], i % n_kv_heads, scratch(thread));
    }
  });
}

void CpuBackend::attend(const Attention& op, const AttentionBlock& block, std::int64_t kv_head,
                        float* memory) {
  const KvLayout layout = kv_layout(op.k_cache, op.pages);
  const std::int64_t heads = op.q.shape[1];
  const std::int64_t head_dim = op.q.shape[2];
  const std::int64_t group = heads / layout.n_kv_heads;
  const std::int64_t page = layout.page_tokens;  // keys per tile
  const std::int64_t lanes = kernels_->lanes;
  const std::int64_t width = (head_dim + lanes - 1) / lanes * lanes;
  const std::int64_t rows = block.n_tokens * group;
  const bool f16 = op.k_cache.dtype == DType::kF16;
  const auto decode_f16 = kernels_->decode[static_cast<std::size_t>(DType::kF16)];

  float* q = memory;                    // (rows, width)
  float* out = q + rows * width;        // (rows, width)
  float* scores = out + rows * width;   // (rows, page)
  float* keys = scores + rows * page;   // (head_dim, page): transposed
  float* values = keys + page * width;  // (page, width)
  float* max = values + page * width;   // (rows)
  float* sum = max + rows;              // (rows)
  std::fill_n(out, rows * width, 0.0f);
  std::fill_n(max, rows, -std::numeric_limits<float>::infinity());
  std::fill_n(sum, rows, 0.0f);

  const std::int32_t seq = op.seq.i32()[block.first_token];
  std::int64_t kv_len = 0;
  for (std::int64_t t = 0; t < block.n_tokens; ++t) {
    kv_len = std::max<std::int64_t>(kv_len, op.pos.i32()[block.first_token + t] + 1);
    const float* from = op.q.f32() + ((block.first_token + t) * heads + kv_head * group) * head_dim;
    for (std::int64_t g = 0; g < group; ++g) {
      std::copy_n(from + g * head_dim, head_dim, q + (t * group + g) * width);
    }
  }

  const auto offset_of = [&](std::int64_t key) {
    return kv_offset(layout, op.pages.i32(), seq, kv_head, key, 0);
  };
  // In an order that the processor sees coming. (Keys are transposed: their reads are not.)
  const auto prefetch_tile = [&](const Tensor& cache, std::int64_t first) {
    if (first >= kv_len) return;
    cpu::prefetch<cpu::Cache::kSecond>(
        cache.data + bytes_of(cache.dtype, offset_of(first)), 0,
        bytes_of(cache.dtype, std::min(page, kv_len - first) * head_dim));
  };
  for (std::int64_t first = 0; first < kv_len; first += page) {
    const std::int64_t n_keys = std::min(page, kv_len - first);
    const std::int64_t offset = offset_of(first);
    prefetch_tile(op.v_cache, first);
    const float* k_tile = op.k_cache.as<float>() + offset;
    const float* v_tile = op.v_cache.as<float>() + offset;
    std::int64_t v_stride = head_dim;
    if (f16) {  // `values` serves as the row-major copy of the keys first
      decode_f16(op.k_cache.data + offset * 2, n_keys * head_dim, values);
      k_tile = values;
    }
    // Lanes past n_keys keep what they had; their scores are thrown away.
    kernels_->transpose(k_tile, head_dim, keys, page, n_keys, head_dim);
    kernels_->matmul({q, width, keys, page, scores, page, rows, page, head_dim, false});

    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t pos = op.pos.i32()[block.first_token + r / group];
      kernels_->softmax({scores + r * page, page, std::min(n_keys, pos + 1 - first), op.scale,
                         max + r, sum + r, out + r * width, width});
    }

    prefetch_tile(op.k_cache, first + page);
    if (f16 || width != head_dim) {
      for (std::int64_t j = 0; j < n_keys; ++j) {
        float* to = values + j * width;
        if (f16) {
          decode_f16(op.v_cache.data + (offset + j * head_dim) * 2, head_dim, to);
        } else {
          std::copy_n(v_tile + j * head_dim, head_dim, to);
        }
      }
      v_tile = values;
      v_stride = width;
    }
    // Only keys that a row may see: a weight of 0 does not undo an unused slot that holds
    // not-a-number, nor a later token's infinite value. Rows that see the whole tile go together.
    std::int64_t whole = 0;
    while (whole < block.n_tokens && op.pos.i32()[block.first_token + whole] + 1 - first < n_keys) {
      const std::int64_t seen = op.pos.i32()[block.first_token + whole] + 1 - first;
      const std::int64_t row = whole++ * group;
      if (seen <= 0) continue;
      kernels_->matmul({scores + row * page, page, v_tile, v_stride, out + row * width, width,
                        group, width, seen, true});
    }
    const std::int64_t row = whole * group;
    kernels_->matmul({scores + row * page, page, v_tile, v_stride, out + row * width, width,
                      rows - row, width, n_keys, true});
  }

  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t t = block.first_token + r / group;
    const std::int64_t h = kv_head * group + r % group;
    op.lse.f32()[t * heads + h] = max[r] + std::log(sum[r]);
    float* to = op.out.f32() + (t * heads + h) * head_dim;
    const float scale = 1.0f / sum[r];
    for (std::int64_t d = 0; d < head_dim; ++d) to[d] = out[r * width + d] * scale;
  }
}

}  // namespace qwen
