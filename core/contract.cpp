#include "core/contract.h"

#include <algorithm>
#include <cmath>

#include "core/attention_tolerance.h"
#include "core/rounding.h"

namespace qwen {
namespace {

// Computes the bounds of one op.
class Bounds {
 public:
  Bounds(const Contract& contract, const Tensor& exact, const Tensor& exact_lse)
      : contract_(contract),
        g_(growth(contract.sum_depth, contract.truncates)),
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
    AttentionTolerance bounds(op, {contract_}, y_, lse_);
    bounds.load(0, bounds.n_keys());
    return bounds.rows(0, lse_.size());
  }

 private:
  Tolerance zeros() const { return {std::vector<double>(y_.size(), 0.0), {}}; }

  Tolerance relative(double units) const {
    Tolerance t = zeros();
    const float* const out = y_.f32();
    for (std::size_t i = 0; i < t.out.size(); ++i) t.out[i] = std::abs(out[i]) * units * kUnit;
    return t;
  }

  Contract contract_;
  double g_;
  Tensor y_;
  Tensor lse_;
};

}  // namespace

Tolerance tolerance(const Op& op, const Contract& contract, const Tensor& exact,
                    const Tensor& exact_lse) {
  return std::visit(Bounds(contract, exact, exact_lse), op);
}

}  // namespace qwen
