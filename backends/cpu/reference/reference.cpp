#include "backends/cpu/reference/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backends/cpu/memory.h"
#include "core/half.h"
#include "core/kv_layout.h"
#include "core/sampler.h"

namespace qwen {

Buffer ReferenceBackend::allocate(std::size_t bytes) { return cpu::allocate_memory(bytes); }

void ReferenceBackend::write(const Tensor& dst, const void* src) {
  if (dst.bytes() > 0) std::memcpy(dst.data, src, dst.bytes());
}

void ReferenceBackend::read(void* dst, const Tensor& src) {
  if (src.bytes() > 0) std::memcpy(dst, src.data, src.bytes());
}

void ReferenceBackend::run(const Embed& op) {
  for (std::int64_t t = 0; t < op.out.rows(); ++t) {
    const std::int32_t id = op.ids.i32()[t];
    decode(op.table.dtype, op.table.row(id), op.table.cols(), op.out.f32() + t * op.out.cols());
  }
}

void ReferenceBackend::run(const RmsNorm& op) {
  const std::int64_t dim = op.x.cols();
  for (std::int64_t t = 0; t < op.x.rows(); ++t) {
    const float* x = op.x.f32() + t * dim;
    double sum = 0;
    for (std::int64_t i = 0; i < dim; ++i) sum += double{x[i]} * x[i];
    const double scale = 1.0 / std::sqrt(sum / static_cast<double>(dim) + double{op.eps});
    for (std::int64_t i = 0; i < dim; ++i) {
      op.out.f32()[t * dim + i] = static_cast<float>(x[i] * scale * op.weight.f32()[i]);
    }
  }
}

void ReferenceBackend::run(const Gemm& op) {
  const std::int64_t in_dim = op.x.cols();
  const std::int64_t out_dim = op.out.cols();
  std::vector<float> w(in_dim);
  for (std::int64_t r = 0; r < out_dim; ++r) {
    decode(op.weight.dtype, op.weight.row(r), in_dim, w.data());
    for (std::int64_t t = 0; t < op.x.rows(); ++t) {
      const float* x = op.x.f32() + t * in_dim;
      double sum = 0;
      for (std::int64_t c = 0; c < in_dim; ++c) sum += double{w[c]} * x[c];
      op.out.f32()[t * out_dim + r] = static_cast<float>(sum);
    }
  }
}

void ReferenceBackend::run(const AddBias& op) {
  const std::int64_t n = op.x.cols();
  for (std::int64_t t = 0; t < op.x.rows(); ++t) {
    for (std::int64_t c = 0; c < n; ++c) op.x.f32()[t * n + c] += op.bias.f32()[c];
  }
}

void ReferenceBackend::run(const Rope& op) {
  const std::int64_t heads = op.x.shape[1];
  const std::int64_t head_dim = op.x.shape[2];
  const std::int64_t half = head_dim / 2;
  for (std::int64_t t = 0; t < op.x.shape[0]; ++t) {
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle = double{op.inv_freq.f32()[i]} * op.pos.i32()[t];
      const double cosine = std::cos(angle);
      const double sine = std::sin(angle);
      for (std::int64_t h = 0; h < heads; ++h) {
        float* x = op.x.f32() + (t * heads + h) * head_dim;
        const double a = x[i];
        const double b = x[i + half];
        x[i] = static_cast<float>(a * cosine - b * sine);
        x[i + half] = static_cast<float>(b * cosine + a * sine);
      }
    }
  }
}

void ReferenceBackend::run(const KvWrite& op) {
  const KvLayout layout = kv_layout(op.k_cache, op.pages);
  const std::int64_t heads = op.k.shape[1];
  const std::int64_t head_dim = op.k.shape[2];
  for (std::int64_t t = 0; t < op.k.shape[0]; ++t) {
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t d = 0; d < head_dim; ++d) {
        const std::int64_t to =
            kv_offset(layout, op.pages.i32(), op.seq.i32()[t], h, op.pos.i32()[t], d);
        const std::int64_t from = (t * heads + h) * head_dim + d;
        store_cache_value(op.k_cache, to, op.k.f32()[from] - op.k_center.f32()[h * head_dim + d]);
        store_cache_value(op.v_cache, to, op.v.f32()[from]);
      }
    }
  }
}

void ReferenceBackend::run(const Attention& op) {
  const KvLayout layout = kv_layout(op.k_cache, op.pages);
  const std::int64_t heads = op.q.shape[1];
  const std::int64_t head_dim = op.q.shape[2];
  const std::int64_t group = heads / layout.n_kv_heads;
  std::vector<double> weights;
  std::vector<double> sums(head_dim);
  for (std::int64_t t = 0; t < op.q.shape[0]; ++t) {
    const std::int32_t seq = op.seq.i32()[t];
    const std::int64_t kv_len = op.pos.i32()[t] + 1;
    for (std::int64_t h = 0; h < heads; ++h) {
      const float* q = op.q.f32() + (t * heads + h) * head_dim;
      const auto offset = [&](std::int64_t pos) {
        return kv_offset(layout, op.pages.i32(), seq, h / group, pos, 0);
      };

      weights.assign(kv_len, 0.0);
      for (std::int64_t j = 0; j < kv_len; ++j) {
        double dot = 0;
        for (std::int64_t d = 0; d < head_dim; ++d) {
          dot += double{q[d]} * cache_value(op.k_cache, offset(j) + d);
        }
        weights[j] = op.scale * dot;
      }
      const double max = *std::max_element(weights.begin(), weights.end());
      double total = 0;
      for (double& w : weights) {
        w = std::exp(w - max);
        total += w;
      }
      op.lse.f32()[t * heads + h] = static_cast<float>(max + std::log(total));

      std::fill(sums.begin(), sums.end(), 0.0);
      for (std::int64_t j = 0; j < kv_len; ++j) {
        for (std::int64_t d = 0; d < head_dim; ++d) {
          sums[d] += weights[j] * cache_value(op.v_cache, offset(j) + d);
        }
      }
      for (std::int64_t d = 0; d < head_dim; ++d) {
        op.out.f32()[(t * heads + h) * head_dim + d] = static_cast<float>(sums[d] / total);
      }
    }
  }
}

void ReferenceBackend::run(const SiluMul& op) {
  for (std::int64_t i = 0; i < op.out.size(); ++i) {
    const double gate = op.gate.f32()[i];
    op.out.f32()[i] = static_cast<float>(gate / (1.0 + std::exp(-gate)) * op.up.f32()[i]);
  }
}

void ReferenceBackend::run(const Add& op) {
  for (std::int64_t i = 0; i < op.x.size(); ++i) op.x.f32()[i] += op.y.f32()[i];
}

void ReferenceBackend::run(const TakeRows& op) {
  for (std::int64_t i = 0; i < op.out.rows(); ++i) {
    std::memcpy(op.out.row(i), op.x.row(op.rows.i32()[i]), op.out.row_bytes());
  }
}

void ReferenceBackend::run(const Sample& op) {
  const std::size_t n_vocab = op.logits.cols();
  for (std::int64_t i = 0; i < op.logits.rows(); ++i) {
    const std::int32_t seq = op.seq.i32()[i];
    const std::span seen(op.seen.as<std::int8_t>() + seq * n_vocab, n_vocab);
    SampleParams params;
    std::memcpy(&params, op.params.row(seq), sizeof params);
    const std::span<const float> logits(op.logits.f32() + i * n_vocab, n_vocab);
    const std::int32_t id = sample(logits, seen, params, op.pos.i32()[i]);
    op.out.i32()[i] = id;
    op.logit.f32()[i] = logits[id];
    seen[id] = 1;
  }
}

void ReferenceBackend::run(const Advance& op) {
  for (std::int64_t i = 0; i < op.ids.size(); ++i) {
    op.ids.i32()[i] = op.token.i32()[i];
    op.pos.i32()[i] = op.row_pos.i32()[i];
    op.seq.i32()[i] = op.row_seq.i32()[i];
    op.rows.i32()[i] = static_cast<std::int32_t>(i);
    op.row_pos.i32()[i] += 1;
  }
}

}  // namespace qwen
