#include <algorithm>
#include <cmath>

#include "core/contract.h"
#include "core/dtype.h"
#include "core/rounding.h"

namespace qwen {
namespace {

// Columns of a weight that are decoded at a time, or a block of them if that is larger: few enough
// to see early that a bound suffices, and a multiple of every step of a tensor core.
constexpr std::int64_t kPiece = 64;

// The sizes of the products w x of an element of a Gemm, in blocks of consecutive ones.
class ProductSizes {
 public:
  explicit ProductSizes(std::int64_t block) : block_(block) {}

  // A whole number of blocks, but for the last call.
  void add(const float* w, const float* x, std::int64_t n) {
    for (std::int64_t first = 0; first < n; first += block_) {
      const std::int64_t end = std::min(n, first + block_);
      Lanes block;
      std::int64_t c = first;
      for (; c + Lanes::kCount <= end; c += Lanes::kCount) {
        for (std::int64_t l = 0; l < Lanes::kCount; ++l) add(w[c + l], x[c + l], l, block);
      }
      for (; c < end; ++c) add(w[c], x[c], 0, block);
      const double sum = block.sum();
      (sum > 0 ? positive_ : negative_) += std::abs(sum);
    }
  }
  double sum() const { return sum_.sum(); }
  double weight() const { return weight_.sum(); }
  double partial() const {
    return std::max(
        {positive_, negative_, *std::max_element(largest_.v, largest_.v + Lanes::kCount)});
  }

 private:
  void add(float w, float x, std::int64_t lane, Lanes& block) {
    const double product = double{w} * x;
    const double size = std::abs(product);
    block.v[lane] += product;
    sum_.v[lane] += size;
    weight_.v[lane] += std::abs(double{w});
    largest_.v[lane] = largest_.v[lane] < size ? size : largest_.v[lane];
  }

  std::int64_t block_;
  Lanes sum_, weight_, largest_;
  double positive_ = 0;  // sum of the blocks whose sum is
  double negative_ = 0;
};

}  // namespace

GemmTolerance::GemmTolerance(const Gemm& op, const std::vector<Contract>& contracts,
                             const Tensor& exact)
    : op_(op), exact_(exact) {
  for (const Contract& c : contracts) {
    roundings_.push_back({.growth = growth(c.sum_depth, c.truncates),
                          .sum_block = c.truncates ? c.sum_block : 0,
                          .minima = c.separate_minima,
                          // (1 + a)(1 + b) - 1
                          .operands = c.input_unit + c.weight_unit + c.input_unit * c.weight_unit,
                          .input_step = c.input_step});
    if (block_ == 0) block_ = roundings_.back().sum_block;
    if (c.separate_minima) minima_.resize(op.x.cols());
  }
  per_size_ = of(1, {.sum = 1, .weight = 0, .partial = 1, .block = block_});
}

double GemmTolerance::of(double y, const Sizes& sizes) const {
  double total = 0;
  for (const Rounding& r : roundings_) {
    const double rounded = r.operands * sizes.sum + r.input_step * sizes.weight;
    const bool by_blocks = r.sum_block > 0 && r.sum_block == sizes.block;
    const double terms = sizes.sum + (r.minima ? 2 * sizes.minima : 0);
    const double summed = r.growth * ((by_blocks ? sizes.partial : terms) + rounded);
    total += summed + rounded + kUnit * (2 * y + summed);
  }
  return total;
}

void GemmTolerance::decode_up_to(std::int64_t n_cols) {
  if (n_cols <= decoded_) return;
  const DType type = op_.weight.dtype;
  decode(type, op_.weight.row(row_) + bytes_of(type, decoded_), n_cols - decoded_,
         weights_.data() + decoded_);
  if (!minima_.empty()) {
    decode_minima(type, op_.weight.row(row_) + bytes_of(type, decoded_), n_cols - decoded_,
                  minima_.data() + decoded_);
  }
  decoded_ = n_cols;
}

double GemmTolerance::at(std::int64_t i, double enough) {
  if (at_least(i) >= enough) return at_least(i);
  const std::int64_t n_cols = op_.x.cols();
  const std::int64_t n_out = op_.weight.shape[0];
  if (row_ != i % n_out) {
    row_ = i % n_out;
    decoded_ = 0;
    weights_.resize(static_cast<std::size_t>(n_cols));
  }
  const float* x = op_.x.f32() + i / n_out * n_cols;
  const double y = std::abs(exact_.f32()[i]);
  const std::int64_t step = std::max(kPiece, info(op_.weight.dtype).block_size);
  ProductSizes products(block_ > 0 ? block_ : step);
  double minima = 0;
  double bound = 0;
  for (std::int64_t first = 0; first < n_cols && !(bound >= enough); first += step) {
    const std::int64_t n = std::min(step, n_cols - first);
    decode_up_to(first + n);
    products.add(weights_.data() + first, x + first, n);
    for (std::int64_t c = first; !minima_.empty() && c < first + n; ++c) {
      minima += std::abs(double{minima_[c]} * x[c]);
    }
    bound = of(y, {.sum = products.sum(),
                   .minima = minima,
                   .weight = products.weight(),
                   .partial = products.partial(),
                   .block = block_});
  }
  return bound;
}

}  // namespace qwen
