#include "core/crosscheck/judge.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "core/half.h"
#include "core/rounding.h"

namespace qwen::crosscheck {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Median bound over root mean square of the values, beyond which a check cannot discriminate.
constexpr double kMaxSpread = 0.02;
// Elements whose bound is computed to find that median, and at first: if none of those is wider
// than half the limit, more than half of all are so with a probability of 1/8 at most, in one
// output of the hundreds of a run.
constexpr std::uint64_t kSampled = 63;
constexpr std::uint64_t kSampledFirst = 3;
// Elements of a product that passed by a lower limit of their bound, of which it is computed to
// find the worst: those of the largest errors, since the bounds of a product differ little.
constexpr std::size_t kWorstTried = 2;
// The same of a row.
constexpr std::ptrdiff_t kRowTried = 8;
// Elements that are looked at one by one only if one of them stands out.
constexpr std::int64_t kAtOnce = 256;

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

// The bounds of an op's outputs under all contracts together. Those of a Gemm's elements cost as
// much as the elements, and a lower limit of them is enough for nearly all: they are computed when
// asked for.
class Bounds {
 public:
  Bounds(const Op& op, const std::vector<Tensor>& expected,
         const std::vector<Contract>& contracts) {
    if (const auto* gemm = std::get_if<Gemm>(&op)) {
      gemm_.emplace(*gemm, contracts, expected[0]);
      return;
    }
    const Tensor lse = expected.size() > 1 ? expected[1] : Tensor();
    for (const Contract& contract : contracts) {
      const Tolerance t = tolerance(op, contract, expected[0], lse);
      add(sums_[0], t.out);
      add(sums_[1], t.lse);
    }
  }
  explicit Bounds(std::vector<double> given) { sums_[0] = std::move(given); }
  // Of element i of an output.
  double at_least(std::size_t output, std::int64_t i) const {
    return gemm_ ? gemm_->at_least(i) : sums_[output][static_cast<std::size_t>(i)];
  }
  // A lower limit will do if it is at least `enough`.
  double at(std::size_t output, std::int64_t i, double enough = kInfinity) {
    return gemm_ ? gemm_->at(i, enough) : sums_[output][static_cast<std::size_t>(i)];
  }
  // Whether at_least() is less than at().
  bool are_limits() const { return gemm_.has_value(); }
  // Whether one of the errors |have - want| of elements [begin, end) may be beyond `share` of its
  // bound, or is larger than `largest`, or is none.
  bool stand_out(std::size_t output, const float* have, const float* want, std::int64_t begin,
                 std::int64_t end, double share, double largest) const {
    const double per_size = gemm_ ? gemm_->per_size() : 0;
    const double* const bounds = gemm_ ? nullptr : sums_[output].data();
    const auto any = [&](auto bound) {
      bool found = false;
      for (std::int64_t i = begin; i < end; ++i) {
        const double error = std::abs(double{have[i]} - want[i]);
        found |= !(error <= share * bound(i)) || error > largest;
      }
      return found;
    };
    return gemm_ ? any([&](std::int64_t i) { return per_size * std::abs(want[i]); })
                 : any([&](std::int64_t i) { return bounds[i]; });
  }

 private:
  static void add(std::vector<double>& sum, const std::vector<double>& more) {
    if (sum.empty()) {
      sum = more;
    } else {
      std::transform(sum.begin(), sum.end(), more.begin(), sum.begin(), std::plus<>());
    }
  }

  std::vector<double> sums_[2];
  std::optional<GemmTolerance> gemm_;
};

// Elements of a row: a token's.
std::int64_t row_size(const Tensor& t) {
  return std::max<std::int64_t>(1, t.size() / std::max<std::int64_t>(1, t.shape[0]));
}

void note_failure(Judgement& j, const Element& e, std::int64_t per_row) {
  j.verdict = Verdict::kFail;
  if (++j.n_failed == 1) j.first = j.worst = e;
  if (e.ratio() > j.worst.ratio()) j.worst = e;
  const bool same_row = e.index / per_row == j.first.index / per_row;
  if (same_row && e.ratio() > j.first.ratio()) j.first = e;
  if (j.failed.size() < Judgement::kMaxListed) j.failed.push_back(e.index);
}

// The spread of some sampled values stands for that of all.
Spread spread_of(const Tensor& expected, Bounds& bounds, std::size_t output) {
  const std::int64_t n = expected.size();
  const float* const values = expected.f32();
  const double rms = std::sqrt(sum_of_squares(values, n) / static_cast<double>(n));
  if (!std::isfinite(rms)) return {.median = kInfinity};
  if (rms == 0) return {};
  Lanes largest_of;
  in_lanes(n, [&](std::int64_t i, std::int64_t lane) {
    const double size = std::abs(values[i]);
    largest_of.v[lane] = largest_of.v[lane] < size ? size : largest_of.v[lane];
  });
  const double largest = *std::max_element(largest_of.v, largest_of.v + Lanes::kCount);
  std::int64_t too_wide = 0;
  for (std::int64_t i = 0; i < n; ++i) too_wide += !(bounds.at_least(output, i) <= largest);
  const double beyond = static_cast<double>(too_wide) / static_cast<double>(n);
  std::vector<double> sampled;
  const std::uint64_t n_sampled = std::min(kSampled, static_cast<std::uint64_t>(n));
  for (std::uint64_t k = 0; k < n_sampled; ++k) {
    sampled.push_back(bounds.at(output, scattered(k, n)));
    const double widest = *std::max_element(sampled.begin(), sampled.end());
    if (k + 1 == kSampledFirst && widest <= kMaxSpread / 2 * rms) {
      return {.median = widest / rms, .beyond = beyond};
    }
  }
  const auto middle = sampled.begin() + static_cast<std::ptrdiff_t>(sampled.size() / 2);
  std::nth_element(sampled.begin(), middle, sampled.end());
  return {.median = *middle / rms, .beyond = beyond};
}

Row judge_row(const Tensor& expected, const Tensor& got, Bounds& bounds, std::size_t output,
              std::int64_t row) {
  if (same_bits(expected, got, row, row + 1)) return {};
  const std::int64_t begin = row * row_size(got);
  const auto element = [&](std::int64_t i) {
    return Element{i, value(got, i), value(expected, i), bounds.at_least(output, i)};
  };
  std::vector<std::int64_t> order(static_cast<std::size_t>(row_size(got)));
  std::iota(order.begin(), order.end(), begin);
  if (bounds.are_limits()) {
    // What may have failed, and of the rest the largest errors: the bounds differ less.
    const auto rest = std::partition(order.begin(), order.end(),
                                     [&](std::int64_t i) { return element(i).ratio() > 1; });
    const auto end = rest + std::min<std::ptrdiff_t>(kRowTried, order.end() - rest);
    std::partial_sort(rest, end, order.end(), [&](std::int64_t a, std::int64_t b) {
      return element(a).error() > element(b).error();
    });
    order.erase(end, order.end());
  }
  Row judged{.worst = {.index = begin}, .same_bits = false};
  for (const std::int64_t i : order) {
    Element e = element(i);
    e.tolerance = bounds.at(output, i);
    if (e.ratio() > judged.worst.ratio()) judged.worst = e;
  }
  return judged;
}

// The few largest errors of many, and where they are.
class LargestErrors {
 public:
  void add(double error, std::int64_t index) {
    if (!(error > least_)) return;
    kept_.emplace_back(error, index);
    std::sort(kept_.begin(), kept_.end(), std::greater<>());
    if (kept_.size() > kWorstTried) kept_.pop_back();
    if (kept_.size() == kWorstTried) least_ = kept_.back().first;
  }
  const std::vector<std::pair<double, std::int64_t>>& kept() const { return kept_; }
  // What an error must exceed to be kept.
  double least() const { return least_; }

 private:
  double least_ = 0;
  std::vector<std::pair<double, std::int64_t>> kept_;
};

Judgement judge_numbers(const Tensor& expected, const Tensor& got, Bounds& bounds,
                        std::size_t output) {
  Judgement j{.n_elements = got.size()};
  const std::int64_t per_row = row_size(got);
  const float* const want = expected.f32();
  const float* const have = got.f32();
  const auto element = [&](std::int64_t i, double tolerance) {
    return Element{i, have[i], want[i], tolerance};
  };
  // Once the verdict stands and the list is full, an error beyond all bounds so far is counted
  // without a look at its own: of a whole product that is wrong each would cost as much as it.
  double widest = 0;
  const auto bound_of = [&](std::int64_t i, double error) {
    const bool is_listed = j.failed.size() < Judgement::kMaxListed;
    const double bound = is_listed || error <= widest ? bounds.at(output, i, error) : widest;
    widest = std::max(widest, bound);
    return bound;
  };
  LargestErrors passed;
  double worst = 0;
  const auto judge_one = [&](std::int64_t i) {
    const double error = std::abs(double{have[i]} - want[i]);
    const double limit = bounds.at_least(output, i);
    if (error <= limit) {  // false for not-a-number
      if (bounds.are_limits()) {
        passed.add(error, i);
      } else if (error > worst * limit) {
        j.worst = element(i, limit);
        worst = j.worst.ratio();
      }
      return;
    }
    const Element e = element(i, bound_of(i, error));
    if (e.ratio() > 1) {
      note_failure(j, e, per_row);
    } else {
      passed.add(error, i);
    }
  };
  const std::int64_t n = got.size();
  for (std::int64_t begin = 0; begin < n; begin += kAtOnce) {
    const std::int64_t end = std::min(n, begin + kAtOnce);
    const bool stand_out =
        bounds.are_limits()
            ? bounds.stand_out(output, have, want, begin, end, 1, passed.least())
            : bounds.stand_out(output, have, want, begin, end, std::min(worst, 1.0), kInfinity);
    if (!stand_out) continue;
    for (std::int64_t i = begin; i < end; ++i) judge_one(i);
  }
  for (const auto& [error, i] : passed.kept()) {
    const Element e = element(i, bounds.at(output, i));
    if (e.ratio() > j.worst.ratio()) j.worst = e;
  }
  if (j.verdict == Verdict::kPass) {
    j.spread = spread_of(expected, bounds, output);
    if (!j.spread.sound()) j.verdict = Verdict::kUnsound;
  }
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

bool Spread::sound() const { return median <= kMaxSpread && beyond <= kMaxSpread; }

bool is_bit_exact(const Op& op) {
  return std::holds_alternative<KvWrite>(op) || std::holds_alternative<Sample>(op) ||
         std::holds_alternative<Advance>(op);
}

Judgement compare_bits(const Tensor& expected, const Tensor& got) {
  Judgement j{.n_elements = got.size()};
  if (std::memcmp(expected.data, got.data, got.bytes()) == 0) return j;
  const auto n = static_cast<std::size_t>(std::max<std::int64_t>(1, got.size()));
  const std::size_t size = got.bytes() / n;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const std::size_t at = static_cast<std::size_t>(i) * size;
    if (std::memcmp(expected.data + at, got.data + at, size) == 0) continue;
    note_failure(j, {i, value(got, i), value(expected, i), 0}, row_size(got));
  }
  return j;
}

std::vector<std::int64_t> coords_in_row(const Tensor& output, std::int64_t index) {
  std::vector<std::int64_t> coords;
  std::int64_t inner = row_size(output);
  std::int64_t rest = index % inner;
  for (int k = 1; k < output.rank; ++k) {
    inner /= output.shape[k];
    coords.push_back(rest / inner);
    rest %= inner;
  }
  return coords;
}

bool same_bits(const Tensor& a, const Tensor& b, std::int64_t begin, std::int64_t end) {
  const Tensor x = a.slice(begin, end);
  return std::memcmp(x.data, b.slice(begin, end).data, x.bytes()) == 0;
}

std::int64_t scattered(std::uint64_t k, std::int64_t n) {
  return static_cast<std::int64_t>((k * 0x9e3779b97f4a7c15u >> 11) % static_cast<std::uint64_t>(n));
}

Judgement judge(const Tensor& expected, const Tensor& got, std::vector<double> given) {
  Bounds bounds(std::move(given));
  return judge_numbers(expected, got, bounds, 0);
}

std::vector<Judgement> judge(const Op& op, const std::vector<Tensor>& expected,
                             const std::vector<Tensor>& got, const std::vector<Contract>& contracts,
                             bool by_row) {
  Op names = op;
  std::vector<Judgement> all;
  std::optional<Bounds> bounds;
  if (!is_bit_exact(op)) bounds.emplace(op, expected, contracts);
  for (const Operand& operand : operands(names)) {
    if (!writes(operand.access)) continue;
    const std::size_t n = all.size();
    all.push_back(bounds ? judge_numbers(expected[n], got[n], *bounds, n)
                         : compare_bits(expected[n], got[n]));
    all.back().output = operand.name;
    if (!by_row || !bounds) continue;
    for (std::int64_t row = 0; row < got[n].shape[0]; ++row) {
      all.back().rows.push_back(judge_row(expected[n], got[n], *bounds, n, row));
    }
  }
  return all;
}

}  // namespace qwen::crosscheck
