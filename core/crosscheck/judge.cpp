#include "core/crosscheck/judge.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include "core/crosscheck/judge_part.h"
#include "core/crosscheck/parts.h"
#include "core/crosscheck/scratch.h"
#include "core/half.h"

namespace qwen::crosscheck {
namespace {

// Median bound over root mean square of the values, beyond which a check cannot discriminate.
constexpr double kMaxSpread = 0.02;
// Elements whose bound is computed to find that median. If none of the first few (kSampledFirst) is
// wider than half the limit, more than half of all are so with a probability of 1/8 at most; each
// step looks at others.
constexpr std::uint64_t kSampled = 63;
// Of values that are all 0: what a bound may be. (The logarithm of a sum of one has some units.)
constexpr double kAlmostNothing = 0x1p-20;

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

// The share of the elements whose bound is beyond `limit`; 1 if that is so of a whole row. Of a
// product, by a lower limit of the bounds.
double share_beyond(const std::vector<Part>& parts, std::size_t output, const Tensor& expected,
                    double limit) {
  const std::int64_t per_row = row_size(expected);
  std::vector<std::int64_t> by_row(static_cast<std::size_t>(expected.size() / per_row));
  for (const Part& part : parts) {
    const Part::Output& own = part.outputs[output];
    for (std::int64_t i = own.elements.begin; i < own.elements.end;) {
      const std::int64_t row = i / per_row;
      const std::int64_t end = std::min(own.elements.end, (row + 1) * per_row);
      by_row[static_cast<std::size_t>(row)] +=
          part.bounds.count_beyond(output, {i, end}, own.judged.largest, limit);
      i = end;
    }
  }
  if (std::find(by_row.begin(), by_row.end(), per_row) != by_row.end()) return 1;
  return static_cast<double>(std::accumulate(by_row.begin(), by_row.end(), std::int64_t{0})) /
         static_cast<double>(expected.size());
}

// The spread of some sampled values stands for that of all.
Spread spread_of(std::vector<Part>& parts, std::size_t output, const Tensor& expected,
                 std::uint64_t sample) {
  const std::int64_t n = expected.size();
  double squares = 0;
  double largest = 0;
  std::vector<double> sampled;
  for (const Part& part : parts) {
    const Part::Output& own = part.outputs[output];
    squares += own.judged.sum_of_squares;
    largest = std::max(largest, own.judged.largest);
    sampled.insert(sampled.end(), own.sampled.begin(), own.sampled.end());
  }
  const double rms = std::sqrt(squares / static_cast<double>(n));
  if (!std::isfinite(rms)) return {.median = kInfinity};
  const double widest = *std::max_element(sampled.begin(), sampled.end());
  if (rms == 0) return {.median = widest <= kAlmostNothing ? 0 : kInfinity};
  const double beyond = share_beyond(parts, output, expected, largest);
  if (sampled.size() == kSampledFirst && widest <= kMaxSpread / 2 * rms) {
    return {.median = widest / rms, .beyond = beyond};
  }
  for (auto k = sampled.size(); k < std::min(kSampled, static_cast<std::uint64_t>(n)); ++k) {
    const std::int64_t at = scattered(sample + k, n);
    const auto part = std::find_if(parts.begin(), parts.end(), [&](const Part& p) {
      return p.outputs[output].elements.holds(at);
    });
    sampled.push_back(part->bounds.at(output, at));
  }
  const auto middle = sampled.begin() + static_cast<std::ptrdiff_t>(sampled.size() / 2);
  std::nth_element(sampled.begin(), middle, sampled.end());
  return {.median = *middle / rms, .beyond = beyond};
}

// Adds what was found out about a part of an output of rows of `per_row` elements.
void add(Judgement& all, Judgement part, std::int64_t per_row) {
  all.n_elements += part.n_elements;
  if (part.worst.ratio() > all.worst.ratio()) all.worst = part.worst;
  all.rows.insert(all.rows.end(), part.rows.begin(), part.rows.end());
  if (part.verdict != Verdict::kFail) return;
  all.verdict = Verdict::kFail;
  const bool is_first =
      all.n_failed == 0 || (part.first.index / per_row == all.first.index / per_row &&
                            part.first.ratio() > all.first.ratio());
  if (is_first) all.first = part.first;
  all.n_failed += part.n_failed;
  const std::size_t room = Judgement::kMaxListed - all.failed.size();
  const auto end =
      part.failed.begin() + static_cast<std::ptrdiff_t>(std::min(room, part.failed.size()));
  all.failed.insert(all.failed.end(), part.failed.begin(), end);
}

// What the parts say together. Of the elements that passed by a lower limit of their bound, only
// those of the largest errors of all parts are looked at once more, if their ratios may be beyond
// known_worst.
Judgement merged(std::vector<Part>& parts, std::size_t output, const Tensor& expected,
                 const Tensor& got, const JudgeOptions& options) {
  struct Passed {
    double error;
    std::int64_t index;
    Bounds* bounds;
  };
  Judgement all;
  std::vector<Passed> passed;
  for (Part& part : parts) {
    Part::Output& own = part.outputs[output];
    JudgedPart& judged = own.judged;
    // While there is room in the list, all that belongs into it is found.
    if (!judged.is_exact && all.failed.size() < Judgement::kMaxListed) {
      std::vector<Row> rows = std::move(judged.judgement.rows);
      judged = judge_part(expected, got, part.bounds, output, own.elements, Judgement::kMaxListed,
                          false);
      judged.judgement.rows = std::move(rows);
    }
    for (const auto& [error, i] : judged.passed.kept()) passed.push_back({error, i, &part.bounds});
    add(all, std::move(judged.judgement), row_size(got));
  }
  const auto largest =
      passed.begin() + static_cast<std::ptrdiff_t>(std::min(passed.size(), LargestErrors::kKept));
  std::partial_sort(passed.begin(), largest, passed.end(), [](const Passed& a, const Passed& b) {
    return a.error != b.error ? a.error > b.error : a.index < b.index;
  });
  for (const Passed& p : std::span(passed.begin(), largest)) {
    const double least = std::max(options.known_worst, all.worst.ratio());
    Element e{p.index, got.f32()[p.index], expected.f32()[p.index],
              p.bounds->at(output, p.index, p.error / least)};
    if (e.ratio() <= least) continue;
    e.tolerance = p.bounds->at(output, p.index);
    if (e.ratio() > least) all.worst = e;
  }
  if (all.verdict == Verdict::kPass) {
    all.spread = spread_of(parts, output, expected, options.sample);
    if (!all.spread.sound()) all.verdict = Verdict::kUnsound;
  }
  return all;
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
  std::vector<Part> parts;
  parts.push_back(judged_whole(expected, got, std::move(given)));
  return merged(parts, 0, expected, got, {});
}

std::vector<Judgement> judge(const Op& op, const std::vector<Tensor>& expected,
                             const std::vector<Tensor>& got, const std::vector<Contract>& contracts,
                             const JudgeOptions& options) {
  Op names = op;
  std::vector<Judgement> all;
  std::vector<Part> parts;
  if (!is_bit_exact(op)) parts = judged_parts(op, expected, got, contracts, options);
  for (const Operand& operand : operands(names)) {
    if (!writes(operand.access)) continue;
    const std::size_t n = all.size();
    all.push_back(is_bit_exact(op) ? compare_bits(expected[n], got[n])
                                   : merged(parts, n, expected[n], got[n], options));
    all.back().output = operand.name;
  }
  return all;
}

}  // namespace qwen::crosscheck
