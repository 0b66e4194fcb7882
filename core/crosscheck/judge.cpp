#include "core/crosscheck/judge.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/half.h"

namespace qwen::crosscheck {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Median bound over root mean square of the values, beyond which a check cannot discriminate.
constexpr double kMaxSpread = 0.02;
// Elements whose bound is computed to find that median.
constexpr std::int64_t kSampled = 64;

double value(const Tensor& t, std::int64_t i) {
  switch (t.dtype) {
    case DType::kF32:
      return t.as<float>()[i];
    case DType::kF16:
      return f16_to_f32(t.as<std::uint16_t>()[i]);
    case DType::kI32:
      return t.as<std::int32_t>()[i];
    default:
      return t.as<std::int8_t>()[i];
  }
}

// The bounds of one output under all contracts. Those of a Gemm's elements cost as much as the
// elements, and a lower limit of them is enough for nearly all: they are computed when asked for.
class Bounds {
 public:
  Bounds(const Op& op, const std::vector<Tensor>& expected, const std::vector<Contract>& contracts,
         std::size_t output) {
    const Tensor lse = expected.size() > 1 ? expected[1] : Tensor();
    for (const Contract& contract : contracts) {
      if (const auto* gemm = std::get_if<Gemm>(&op)) {
        gemms_.emplace_back(*gemm, contract, expected[0]);
        continue;
      }
      Tolerance t = tolerance(op, contract, expected[0], lse);
      std::vector<double>& bound = output == 0 ? t.out : t.lse;
      if (sum_.empty()) {
        sum_ = std::move(bound);
      } else {
        std::transform(sum_.begin(), sum_.end(), bound.begin(), sum_.begin(), std::plus<>());
      }
    }
  }
  double at_least(std::int64_t i) const {
    if (gemms_.empty()) return sum_[i];
    double sum = 0;
    for (const GemmTolerance& gemm : gemms_) sum += gemm.at_least(i);
    return sum;
  }
  double at(std::int64_t i) {
    if (gemms_.empty()) return sum_[i];
    double sum = 0;
    for (GemmTolerance& gemm : gemms_) sum += gemm.at(i);
    return sum;
  }

 private:
  std::vector<double> sum_;
  std::vector<GemmTolerance> gemms_;
};

void note(Judgement& j, const Element& element) {
  const double ratio = element.ratio();
  if (ratio > j.worst.ratio()) j.worst = element;
  if (ratio <= 1) return;
  j.verdict = Verdict::kFail;
  ++j.n_failed;
  if (j.failed.size() < Judgement::kMaxListed) j.failed.push_back(element.index);
}

// Unsound if half of the bounds are wide beside the values. The spread of the sampled values stands
// for that of all.
bool is_unsound(const Tensor& expected, Bounds& bounds) {
  const std::int64_t n = expected.size();
  double squares = 0;
  for (std::int64_t i = 0; i < n; ++i) squares += value(expected, i) * value(expected, i);
  const double rms = std::sqrt(squares / static_cast<double>(n));
  if (!(rms > 0) || !std::isfinite(rms)) return false;
  std::vector<double> sampled;
  const std::int64_t step = std::max<std::int64_t>(1, n / kSampled);
  for (std::int64_t i = 0; i < n; i += step) sampled.push_back(bounds.at(i));
  const auto middle = sampled.begin() + static_cast<std::ptrdiff_t>(sampled.size() / 2);
  std::nth_element(sampled.begin(), middle, sampled.end());
  return !(*middle <= kMaxSpread * rms);
}

Judgement judge_numbers(const Tensor& expected, const Tensor& got, Bounds& bounds) {
  Judgement j{.n_elements = got.size()};
  double worst_possible = 0;  // of the elements that passed by their lower limit
  std::vector<Element> close;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    Element e{i, value(got, i), value(expected, i), bounds.at_least(i)};
    const double ratio = e.ratio();
    if (ratio > 1) {
      e.tolerance = bounds.at(i);
      note(j, e);
    } else if (ratio > worst_possible) {
      worst_possible = ratio;
      close.push_back(e);
    }
  }
  // Each of `close` may be worse than all before it: from the last on, until none can be worse.
  for (; !close.empty() && close.back().ratio() > j.worst.ratio(); close.pop_back()) {
    Element e = close.back();
    e.tolerance = bounds.at(e.index);
    note(j, e);
  }
  if (j.verdict == Verdict::kPass && is_unsound(expected, bounds)) j.verdict = Verdict::kUnsound;
  return j;
}

}  // namespace

double Element::error() const { return std::abs(got - expected); }

double Element::ratio() const {
  const bool finite = std::isfinite(got) && std::isfinite(expected);
  if (!finite) {
    const bool same = (std::isnan(got) && std::isnan(expected)) || got == expected;
    return same ? 0 : kInfinity;
  }
  if (error() == 0) return 0;
  return tolerance > 0 ? error() / tolerance : kInfinity;
}

bool is_bit_exact(const Op& op) {
  return std::holds_alternative<KvWrite>(op) || std::holds_alternative<Sample>(op) ||
         std::holds_alternative<Advance>(op);
}

Judgement compare_bits(const Tensor& expected, const Tensor& got) {
  Judgement j{.n_elements = got.size()};
  const std::size_t size =
      got.bytes() / static_cast<std::size_t>(std::max<std::int64_t>(1, got.size()));
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const std::size_t at = static_cast<std::size_t>(i) * size;
    if (std::memcmp(expected.data + at, got.data + at, size) == 0) continue;
    note(j, {i, value(got, i), value(expected, i), 0});
    // Other bits of the same number: a zero's sign, another not-a-number.
    if (j.failed.empty() || j.failed.back() != i) {
      j.verdict = Verdict::kFail;
      ++j.n_failed;
      if (j.failed.size() < Judgement::kMaxListed) j.failed.push_back(i);
    }
  }
  return j;
}

std::vector<Judgement> judge(const Op& op, const std::vector<Tensor>& expected,
                             const std::vector<Tensor>& got,
                             const std::vector<Contract>& contracts) {
  Op names = op;
  std::vector<Judgement> all;
  for (const Operand& operand : operands(names)) {
    if (!writes(operand.access)) continue;
    const std::size_t n = all.size();
    if (is_bit_exact(op)) {
      all.push_back(compare_bits(expected[n], got[n]));
    } else {
      Bounds bounds(op, expected, contracts, n);
      all.push_back(judge_numbers(expected[n], got[n], bounds));
    }
    all.back().output = operand.name;
  }
  return all;
}

}  // namespace qwen::crosscheck
