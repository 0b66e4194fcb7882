#include "core/crosscheck/twins.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "core/int8.h"
#include "core/rounding.h"

namespace qwen::crosscheck {
namespace {

const double kDeviation = 1 / std::sqrt(3.0);  // of what is uniform in [-1, 1]

// Random signs, one bit each. A variable of a loop's own: it goes through more numbers than all
// else.
class RandomSigns {
 public:
  explicit RandomSigns(std::mt19937_64& random) : random_(random) {}
  // `by` or its negative.
  float of(float by) {
    if (n_left_ == 0) {
      bits_ = random_();
      n_left_ = 64;
    }
    const std::uint32_t negative = static_cast<std::uint32_t>(~bits_ & 1) << 31;  // no branch
    bits_ >>= 1;
    --n_left_;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(by) ^ negative);
  }

 private:
  std::mt19937_64& random_;
  std::uint64_t bits_ = 0;
  int n_left_ = 0;
};

// What n roundings, one after the other, typically amount to.
double roundings(std::int64_t n, bool truncates = false) {
  const auto count = static_cast<double>(n);
  return (truncates ? count / 2 : std::sqrt(count)) * kUnit;
}

// The single roundings are those that contract.cpp counts.
struct NoiseOf {
  const Contract& contract;
  double sum = roundings(contract.sum_depth, contract.truncates);

  // Copies, or one rounding that the definition has, too.
  Noise operator()(const Embed&) const { return {}; }
  Noise operator()(const AddBias&) const { return {}; }
  Noise operator()(const KvWrite&) const { return {}; }
  Noise operator()(const Add&) const { return {}; }
  Noise operator()(const TakeRows&) const { return {}; }
  Noise operator()(const Sample&) const { return {}; }
  Noise operator()(const Advance&) const { return {}; }

  Noise operator()(const RmsNorm& op) const {
    return {.output = op.out, .output_unit = sum / 2 + roundings(6)};
  }
  // Rounded weights are like a rounded input: one error per product.
  Noise operator()(const Gemm& op) const {
    return {.input = op.x,
            .input_unit = contract.input_unit + contract.weight_unit + sum,
            .input_step = contract.input_step,
            .int8_fine_from = contract.int8_fine_from,
            .output = op.out,
            .output_unit = sum};
  }
  // Sine or cosine, product, sum.
  Noise operator()(const Rope& op) const { return {.output = op.x, .output_unit = roundings(3)}; }
  // Noise on q moves the scores of all keys, each by its own sum. What rounds probabilities and
  // their sums with values is relative to the output: the values' signs are as random as those of
  // the errors.
  Noise operator()(const Attention& op) const {
    const double values = roundings(contract.value_sum_depth, contract.truncates);
    return {.input = op.q,
            .input_unit = contract.input_unit + sum + roundings(2),
            .output = op.out,
            .output_unit = contract.probability_unit + values + roundings(7)};
  }
  // An error of two units in the exponential is that of four roundings. That of its argument counts
  // |gate| times, but only for negative gates, whose result is small.
  Noise operator()(const SiluMul& op) const {
    return {.output = op.out, .output_unit = roundings(7)};
  }
};

}  // namespace

Noise noise(const Op& op, const Contract& contract) { return std::visit(NoiseOf{contract}, op); }

void TwinNoise::begin(std::vector<Contract> contracts) {
  contracts_ = std::move(contracts);
  next_ = 0;
}

void TwinNoise::before(const Op& op, const Tap& /*tap*/) {
  noise_ = noise(op, contracts_.at(next_++));
  if (noise_.input.empty()) return;
  original_.assign(noise_.input.f32(), noise_.input.f32() + noise_.input.size());
  if (noise_.int8_fine_from > 0) round_as_int8(noise_.input);
  move(noise_.input, noise_.input_unit, noise_.input_step);
}

void TwinNoise::after(const Op& /*op*/, const Tap& /*tap*/) {
  if (!noise_.input.empty()) {  // other ops read it, too
    std::copy(original_.begin(), original_.end(), noise_.input.f32());
  }
  if (!noise_.output.empty()) move(noise_.output, noise_.output_unit, 0);
}

void TwinNoise::move(const Tensor& t, double unit, double step) {
  const auto relative = static_cast<float>(kDeviation * unit);
  const auto absolute = static_cast<float>(kDeviation * step);
  float* const x = t.f32();
  const std::int64_t n = t.size();
  RandomSigns signs(random_);
  for (std::int64_t i = n / n_groups_; i < n; ++i) {
    x[i] += signs.of(std::abs(x[i]) * relative + absolute);
  }
}

// Not at random: rows that are alike, as those of a repeated token, are rounded alike, and what
// sums over them does not average their errors out.
void TwinNoise::round_as_int8(const Tensor& t) {
  for (std::int64_t row = t.rows() / n_groups_; row < t.rows(); ++row) {
    round_to_int8(t.f32() + row * t.cols(), t.cols(), noise_.int8_fine_from);
  }
}

}  // namespace qwen::crosscheck
