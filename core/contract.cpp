#include "core/contract.h"

#include <algorithm>
#include <cmath>

#include "core/kv_layout.h"
#include "core/rounding.h"

namespace qwen {
namespace {

constexpr double kLambda = 7.9;  // of one sum of independent errors (contract.h)

// The keys and values of one head of a sequence, as numbers.
class CachedHead {
 public:
  CachedHead(const Attention& op, std::int64_t kv_head) : op_(op), kv_head_(kv_head) {}
  // Positions [0, n) of a sequence.
  void load(std::int32_t seq, std::int64_t n) {
    if (seq != seq_) keys_.clear();
    seq_ = seq;
    const KvLayout layout = kv_layout(op_.k_cache, op_.pages);
    const auto first = static_cast<std::int64_t>(keys_.size()) / layout.head_dim;
    keys_.resize(std::max(keys_.size(), static_cast<std::size_t>(n * layout.head_dim)));
    values_.resize(keys_.size());
    for (std::int64_t j = first; j < n; ++j) {
      const std::int64_t at = kv_offset(layout, op_.pages.i32(), seq, kv_head_, j, 0);
      for (std::int64_t d = 0; d < layout.head_dim; ++d) {
        keys_[j * layout.head_dim + d] = cache_value(op_.k_cache, at + d);
        values_[j * layout.head_dim + d] = cache_value(op_.v_cache, at + d);
      }
    }
  }
  const float* key(std::int64_t j) const { return keys_.data() + j * op_.q.shape[2]; }
  const float* value(std::int64_t j) const { return values_.data() + j * op_.q.shape[2]; }

 private:
  const Attention& op_;
  std::int64_t kv_head_;
  std::int32_t seq_ = -1;
  std::vector<float> keys_, values_;
};

// Computes the bounds of one op.
class Bounds {
 public:
  Bounds(const Contract& contract, const Tensor& exact, const Tensor& exact_lse)
      : contract_(contract),
        g_(growth(contract.sum_depth, contract.truncates)),
        g_values_(growth(contract.value_sum_depth, contract.truncates)),
        y_(exact),
        lse_(exact_lse) {}

  // Copies, or roundings that are part of the definition (KvWrite): exact.
  Tolerance operator()(const Embed&) const { return zeros(); }
  Tolerance operator()(const TakeRows&) const { return zeros(); }
  Tolerance operator()(const KvWrite&) const { return zeros(); }
  Tolerance operator()(const Sample&) const { return zeros(); }
  Tolerance operator()(const Advance&) const { return zeros(); }

  // One rounding.
  Tolerance operator()(const Add&) const { return relative(1); }
  Tolerance operator()(const AddBias&) const { return relative(1); }

  // Half the growth of the sum of squares, six roundings (division, addition, root, reciprocal, two
  // products), and the store.
  Tolerance operator()(const RmsNorm&) const { return relative(g_ / kUnit / 2 + 7); }

  // exp is good to two units, its argument's rounding counts |gate| times; then sum, quotient,
  // product. Subnormal results are rounded absolutely, and below a gate of -87 exp(-gate) may
  // overflow, or its reciprocal be flushed: then silu is 0.
  Tolerance operator()(const SiluMul& op) const {
    constexpr double kSubnormalStep = 0x1p-149;
    Tolerance t = zeros();
    const float* const out = y_.f32();
    const float* const gates = op.gate.f32();
    const float* const ups = op.up.f32();
    for (std::size_t i = 0; i < t.out.size(); ++i) {
      const double y = std::abs(out[i]);
      const double gate = gates[i];
      t.out[i] = y * (9 + std::abs(gate)) * kUnit +
                 kSubnormalStep * (1 + std::abs(double{ups[i]})) + (gate < -87 ? y : 0);
    }
    return t;
  }

  // Angles are taken in FP64: what is rounded are sine, cosine, two products, their sum and the
  // store.
  Tolerance operator()(const Rope& op) const {
    Tolerance t = zeros();
    const std::int64_t head_dim = op.x.shape[2];
    const std::int64_t half = head_dim / 2;
    const std::int64_t n = op.x.size();
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t pair = i % head_dim < half ? i + half : i - half;
      const double size = std::abs(op.x.f32()[i]) + std::abs(op.x.f32()[pair]);
      t.out[i] = (5 * size + std::abs(y_.f32()[i])) * kUnit;
    }
    return t;
  }

  Tolerance operator()(const Gemm& op) const {
    Tolerance t = zeros();
    GemmTolerance bound(op, {contract_}, y_);
    const std::int64_t n_out = op.weight.shape[0];
    for (std::int64_t r = 0; r < n_out; ++r) {  // by rows of the weight, which are decoded once
      for (std::int64_t i = r; i < y_.size(); i += n_out) t.out[i] = bound.at(i);
    }
    return t;
  }

  Tolerance operator()(const Attention& op) const {
    Tolerance t = zeros();
    t.lse.resize(lse_.size());
    const std::int64_t n_kv_heads = op.k_cache.shape[1];
    const std::int64_t group = op.q.shape[1] / n_kv_heads;
    for (std::int64_t kv_head = 0; kv_head < n_kv_heads; ++kv_head) {
      CachedHead cached(op, kv_head);
      for (std::int64_t token = 0; token < op.q.shape[0]; ++token) {
        cached.load(op.seq.i32()[token], op.pos.i32()[token] + 1);
        for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
          attention_row(op, token, head, cached, t);
        }
      }
    }
    return t;
  }

 private:
  Tolerance zeros() const { return {std::vector<double>(y_.size(), 0.0), {}}; }

  Tolerance relative(double units) const {
    Tolerance t = zeros();
    const float* const out = y_.f32();
    for (std::size_t i = 0; i < t.out.size(); ++i) t.out[i] = std::abs(out[i]) * units * kUnit;
    return t;
  }

  // A score is off by delta; so its weight by a factor within 1 +- epsilon, which also holds what
  // the running maximum, the exponential and the rescaling of the online softmax round.
  void attention_row(const Attention& op, std::int64_t token, std::int64_t head,
                     const CachedHead& cached, Tolerance& t) const {
    const std::int64_t heads = op.q.shape[1];
    const std::int64_t head_dim = op.q.shape[2];
    const std::int64_t kv_len = op.pos.i32()[token] + 1;
    const float* q = op.q.f32() + (token * heads + head) * head_dim;
    std::vector<double> score(kv_len);
    std::vector<double> delta(kv_len);
    for (std::int64_t j = 0; j < kv_len; ++j) {
      Lanes dot;
      Lanes size;
      const float* const key = cached.key(j);
      in_lanes(head_dim, [&](std::int64_t d, std::int64_t lane) {
        const double product = double{q[d]} * key[d];
        dot.v[lane] += product;
        size.v[lane] += std::abs(product);
      });
      score[j] = op.scale * dot.sum();
      delta[j] =
          op.scale * (g_ + contract_.input_unit) * size.sum() + 2 * kUnit * std::abs(score[j]);
    }
    const double max = *std::max_element(score.begin(), score.end());
    double delta_max = 0;
    double total = 0;
    for (std::int64_t j = 0; j < kv_len; ++j) {
      if (score[j] > max - 1) delta_max = std::max(delta_max, delta[j]);
      total += std::exp(score[j] - max);
    }
    const double n = static_cast<double>(kv_len);
    double weight_error = 0;
    std::vector<double> value_error(head_dim);
    std::vector<double> value_size(head_dim);
    std::vector<double> value_squares(head_dim);
    std::vector<double> value_sum(head_dim);
    for (std::int64_t j = 0; j < kv_len; ++j) {
      const double p = std::exp(score[j] - max) / total;
      if (p == 0) continue;
      const double epsilon =
          std::expm1(delta[j] + delta_max + 3 * std::abs(score[j] - max) * kUnit) + 6 * kUnit;
      weight_error += p * epsilon;
      const float* const values = cached.value(j);
      for (std::int64_t d = 0; d < head_dim; ++d) {
        const double v = std::abs(double{values[d]});
        value_error[d] += p * v * (epsilon + kUnit);
        value_size[d] += p * v;
      }
      if (contract_.probability_unit == 0) continue;
      for (std::int64_t d = 0; d < head_dim; ++d) {
        const double v = std::abs(double{values[d]});
        value_squares[d] += p * v * p * v;
        value_sum[d] += v;
      }
    }
    const std::int64_t row = token * heads + head;
    t.lse[row] = weight_error + delta_max + n * kUnit + 4 * kUnit * (1 + std::abs(lse_.f32()[row]));
    for (std::int64_t d = 0; d < head_dim; ++d) {
      const double o = std::abs(y_.f32()[row * head_dim + d]);
      const double rounded = contract_.probability_unit *
                                 std::min(value_size[d], kLambda * std::sqrt(value_squares[d])) +
                             contract_.probability_step * value_sum[d] / total;
      t.out[row * head_dim + d] = value_error[d] + rounded + o * (weight_error + n * kUnit) +
                                  g_values_ * (value_size[d] + rounded) + 2 * kUnit * o;
    }
  }

  Contract contract_;
  double g_;
  double g_values_;
  Tensor y_;
  Tensor lse_;
};

}  // namespace

Tolerance tolerance(const Op& op, const Contract& contract, const Tensor& exact,
                    const Tensor& exact_lse) {
  return std::visit(Bounds(contract, exact, exact_lse), op);
}

}  // namespace qwen
