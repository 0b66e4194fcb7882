#include "core/contract.h"

#include <algorithm>
#include <cmath>

#include "core/kv_layout.h"

namespace qwen {
namespace {

constexpr double kUnit = 0x1p-24;  // unit roundoff of FP32
constexpr double kLambda = 7.9;    // of one sum of independent errors (contract.h)

double growth(std::int64_t depth, bool truncates) {
  if (depth == 0) return 0;
  const double h = static_cast<double>(depth);
  const double linear = h * kUnit / (1 - h * kUnit);
  return truncates ? linear : std::min(linear, 8.8 * std::sqrt(h) * kUnit);
}

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
    for (std::size_t i = 0; i < t.out.size(); ++i) {
      const double y = std::abs(y_.f32()[i]);
      const double gate = op.gate.f32()[i];
      t.out[i] = y * (9 + std::abs(gate)) * kUnit +
                 kSubnormalStep * (1 + std::abs(double{op.up.f32()[i]}));
      if (gate < -87) t.out[i] += y;
    }
    return t;
  }

  // Angles are taken in FP64: what is rounded are sine, cosine, two products, their sum and the
  // store.
  Tolerance operator()(const Rope& op) const {
    Tolerance t = zeros();
    const std::int64_t head_dim = op.x.shape[2];
    const std::int64_t half = head_dim / 2;
    for (std::int64_t i = 0; i < op.x.size(); ++i) {
      const std::int64_t pair = i % head_dim < half ? i + half : i - half;
      const double size = std::abs(op.x.f32()[i]) + std::abs(op.x.f32()[pair]);
      t.out[i] = (5 * size + std::abs(y_.f32()[i])) * kUnit;
    }
    return t;
  }

  Tolerance operator()(const Gemm& op) const {
    Tolerance t = zeros();
    GemmTolerance bound(op, contract_, y_);
    const std::int64_t n_out = op.weight.shape[0];
    for (std::int64_t r = 0; r < n_out; ++r) {  // by rows of the weight, which are decoded once
      for (std::int64_t i = r; i < y_.size(); i += n_out) t.out[i] = bound.at(i);
    }
    return t;
  }

  Tolerance operator()(const Attention& op) const {
    Tolerance t = zeros();
    t.lse.resize(lse_.size());
    const std::int64_t heads = op.q.shape[1];
    for (std::int64_t token = 0; token < op.q.shape[0]; ++token) {
      for (std::int64_t head = 0; head < heads; ++head) attention_row(op, token, head, t);
    }
    return t;
  }

 private:
  Tolerance zeros() const { return {std::vector<double>(y_.size(), 0.0), {}}; }

  Tolerance relative(double units) const {
    Tolerance t = zeros();
    for (std::size_t i = 0; i < t.out.size(); ++i) t.out[i] = std::abs(y_.f32()[i]) * units * kUnit;
    return t;
  }

  // A score is off by delta; so its weight by a factor within 1 +- epsilon, which also holds what
  // the running maximum, the exponential and the rescaling of the online softmax round.
  void attention_row(const Attention& op, std::int64_t token, std::int64_t head,
                     Tolerance& t) const {
    const KvLayout layout = kv_layout(op.k_cache, op.pages);
    const std::int64_t heads = op.q.shape[1];
    const std::int64_t head_dim = op.q.shape[2];
    const std::int64_t kv_head = head / (heads / layout.n_kv_heads);
    const std::int64_t kv_len = op.pos.i32()[token] + 1;
    const float* q = op.q.f32() + (token * heads + head) * head_dim;
    const auto offset = [&](std::int64_t pos) {
      return kv_offset(layout, op.pages.i32(), op.seq.i32()[token], kv_head, pos, 0);
    };
    std::vector<double> score(kv_len);
    std::vector<double> delta(kv_len);
    for (std::int64_t j = 0; j < kv_len; ++j) {
      double size = 0;
      for (std::int64_t d = 0; d < head_dim; ++d) {
        const double product = double{q[d]} * cache_value(op.k_cache, offset(j) + d);
        score[j] += op.scale * product;
        size += std::abs(product);
      }
      delta[j] = op.scale * (g_ + contract_.input_unit) * size + 2 * kUnit * std::abs(score[j]);
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
      for (std::int64_t d = 0; d < head_dim; ++d) {
        const double v = std::abs(double{cache_value(op.v_cache, offset(j) + d)});
        value_error[d] += p * v * (epsilon + kUnit);
        value_size[d] += p * v;
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

GemmTolerance::GemmTolerance(const Gemm& op, const Contract& contract, const Tensor& exact)
    : op_(op),
      exact_(exact),
      growth_(growth(contract.sum_depth, contract.truncates)),
      sum_block_(contract.truncates ? contract.sum_block : 0),
      // (1 + a)(1 + b) - 1
      operands_(contract.input_unit + contract.weight_unit +
                contract.input_unit * contract.weight_unit),
      input_step_(contract.input_step),
      weights_(op.x.cols()) {}

double GemmTolerance::of(double y, const Sizes& sizes) const {
  const double rounded = operands_ * sizes.sum + input_step_ * sizes.weight;
  const double summed = growth_ * (sizes.partial + rounded);
  return summed + rounded + kUnit * (2 * y + summed);
}

double GemmTolerance::at(std::int64_t i) {
  const std::int64_t n_cols = op_.x.cols();
  const std::int64_t n_out = op_.weight.shape[0];
  if (row_ != i % n_out) {
    row_ = i % n_out;
    decode(op_.weight.dtype, op_.weight.row(row_), n_cols, weights_.data());
  }
  const float* x = op_.x.f32() + i / n_out * n_cols;
  Sizes sizes;
  double largest = 0;
  double positive = 0;
  double negative = 0;
  const std::int64_t step = sum_block_ > 0 ? sum_block_ : n_cols;
  for (std::int64_t first = 0; first < n_cols; first += step) {
    double block = 0;
    for (std::int64_t c = first; c < std::min(n_cols, first + step); ++c) {
      const double product = double{weights_[c]} * x[c];
      block += product;
      largest = std::max(largest, std::abs(product));
      sizes.sum += std::abs(product);
      sizes.weight += std::abs(double{weights_[c]});
    }
    (block > 0 ? positive : negative) += std::abs(block);
  }
  sizes.partial = sum_block_ > 0 ? std::max({positive, negative, largest}) : sizes.sum;
  return of(std::abs(exact_.f32()[i]), sizes);
}

double GemmTolerance::at_least(std::int64_t i) const {
  const double y = std::abs(exact_.f32()[i]);
  return of(y, {.sum = y, .weight = 0, .partial = y});
}

Tolerance tolerance(const Op& op, const Contract& contract, const Tensor& exact,
                    const Tensor& exact_lse) {
  return std::visit(Bounds(contract, exact, exact_lse), op);
}

}  // namespace qwen
