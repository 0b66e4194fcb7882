#include "core/crosscheck/error_chain.h"

#include <cmath>

#include "core/dtype.h"
#include "core/rounding.h"

namespace qwen::crosscheck {
namespace {

constexpr double kHigherOrders = 1.01;

// Rows of a weight that a thread takes at a time: to decode them, and for their bounds alone.
constexpr std::int64_t kGrain = 32;
constexpr std::int64_t kBoundGrain = 512;

double norm(const float* values, std::int64_t n) { return std::sqrt(sum_of_squares(values, n)); }

// The bounds of the op by itself.
std::vector<double> own(const Op& before, const Contract& contract, const Tensor& exact) {
  return tolerance(before, contract, exact).out;
}

double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }

}  // namespace

const std::vector<double>& RowNorms::of(const Tensor& weight) {
  std::vector<double>& norms = norms_[weight.data];
  if (!norms.empty()) return norms;
  norms.resize(static_cast<std::size_t>(weight.rows()));
  host_.parallel_for(weight.rows(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> row(static_cast<std::size_t>(weight.cols()));
    for (std::int64_t r = begin; r < end; ++r) {
      decode(weight.dtype, weight.row(r), weight.cols(), row.data());
      norms[static_cast<std::size_t>(r)] = norm(row.data(), weight.cols());
    }
  });
  return norms;
}

const std::vector<double>& ErrorChain::of(const Tensor& tensor) const {
  static const std::vector<double> kExact;
  const auto found = errors_.find(tensor.data);
  return found == errors_.end() ? kExact : found->second;
}

double ErrorChain::at(const Tensor& tensor, std::int64_t i) const {
  const std::vector<double>& errors = of(tensor);
  return errors.empty() ? 0 : errors[static_cast<std::size_t>(i)];
}

// d(x_i w_i / rms) <= |w_i| / rms (e_i + |x_i| mean(|x| e) / rms^2).
template <>
std::vector<double> ErrorChain::carried(const RmsNorm& op, const RmsNorm& before,
                                        const Contract& contract) {
  std::vector<double> bounds = own(before, contract, op.out);
  if (of(op.x).empty()) return bounds;
  const std::int64_t dim = op.x.cols();
  for (std::int64_t r = 0; r < op.x.rows(); ++r) {
    double squares = 0;
    double mixed = 0;
    for (std::int64_t i = r * dim; i < (r + 1) * dim; ++i) {
      squares += double{op.x.f32()[i]} * op.x.f32()[i];
      mixed += std::abs(op.x.f32()[i]) * at(op.x, i);
    }
    const auto n = static_cast<double>(dim);
    const double inverse = 1 / std::sqrt(squares / n + double{op.eps});
    for (std::int64_t c = 0; c < dim; ++c) {
      const std::int64_t i = r * dim + c;
      const double x = std::abs(op.x.f32()[i]);
      bounds[static_cast<std::size_t>(i)] += std::abs(op.weight.f32()[c]) * inverse *
                                             (at(op.x, i) + x * mixed / n * inverse * inverse);
    }
  }
  return bounds;
}

template <>
std::vector<double> ErrorChain::carried(const Gemm& op, const Gemm& /*before*/,
                                        const Contract& contract) {
  const std::vector<double>& norms = norms_.of(op.weight);
  const GemmTolerance bound(op, {contract}, op.out);
  const std::int64_t n_cols = op.x.cols();
  const std::int64_t n_out = op.weight.rows();
  const double root = std::sqrt(static_cast<double>(n_cols));
  std::vector<double> bounds(static_cast<std::size_t>(op.out.size()));
  for (std::int64_t t = 0; t < op.x.rows(); ++t) {
    double squared_error = 0;
    for (std::int64_t i = t * n_cols; i < (t + 1) * n_cols; ++i) {
      squared_error += at(op.x, i) * at(op.x, i);
    }
    const double error = std::sqrt(squared_error);
    const double x = norm(op.x.f32() + t * n_cols, n_cols) + error;
    norms_.host().parallel_for(n_out, kBoundGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const double w = norms[static_cast<std::size_t>(r)];
        const auto i = static_cast<std::size_t>(t * n_out + r);
        const double y = std::abs(op.out.f32()[i]);
        bounds[i] = w * error + bound.of(y, {.sum = w * x, .weight = w * root});
      }
    });
  }
  return bounds;
}

template <>
std::vector<double> ErrorChain::carried(const AddBias& op, const AddBias& before,
                                        const Contract& contract) {
  std::vector<double> bounds = own(before, contract, op.x);
  for (std::size_t i = 0; i < bounds.size(); ++i) {
    bounds[i] += at(op.x, static_cast<std::int64_t>(i));
  }
  return bounds;
}

// A sine and a cosine of the pair's errors, of at most 1.
template <>
std::vector<double> ErrorChain::carried(const Rope& op, const Rope& before,
                                        const Contract& contract) {
  std::vector<double> bounds = own(before, contract, op.x);
  const std::int64_t head_dim = op.x.shape[2];
  const std::int64_t half = head_dim / 2;
  for (std::int64_t i = 0; i < op.x.size(); ++i) {
    const std::int64_t pair = i % head_dim < half ? i + half : i - half;
    bounds[static_cast<std::size_t>(i)] += at(op.x, i) + at(op.x, pair);
  }
  return bounds;
}

// |silu(g)| e_u + 1.1 |u| e_g + 1.1 e_g e_u: the slope of silu is at most 1.1.
template <>
std::vector<double> ErrorChain::carried(const SiluMul& op, const SiluMul& before,
                                        const Contract& contract) {
  std::vector<double> bounds = own(before, contract, op.out);
  for (std::size_t k = 0; k < bounds.size(); ++k) {
    const auto i = static_cast<std::int64_t>(k);
    const double g = op.gate.f32()[i];
    const double e_g = at(op.gate, i);
    const double e_u = at(op.up, i);
    bounds[k] +=
        std::abs(g * sigmoid(g)) * e_u + 1.1 * (std::abs(double{op.up.f32()[i]}) + e_u) * e_g;
  }
  return bounds;
}

template <>
std::vector<double> ErrorChain::carried(const Add& op, const Add& before,
                                        const Contract& contract) {
  std::vector<double> bounds = own(before, contract, op.x);
  for (std::size_t k = 0; k < bounds.size(); ++k) {
    const auto i = static_cast<std::int64_t>(k);
    bounds[k] += at(op.x, i) + at(op.y, i);
  }
  return bounds;
}

void ErrorChain::follow(const Op& op, const Op& before, const Contract& contract) {
  std::visit(
      [&](const auto& o) {
        using T = std::decay_t<decltype(o)>;
        if constexpr (std::is_same_v<T, RmsNorm> || std::is_same_v<T, Gemm> ||
                      std::is_same_v<T, AddBias> || std::is_same_v<T, Rope> ||
                      std::is_same_v<T, SiluMul> || std::is_same_v<T, Add>) {
          Op copy = o;
          std::vector<double> bounds = carried<T>(o, std::get<T>(before), contract);
          for (double& b : bounds) b *= kHigherOrders;
          errors_[operands(copy).front().tensor->data] = std::move(bounds);
        }
      },
      op);
}

}  // namespace qwen::crosscheck
