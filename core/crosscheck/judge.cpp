#include "core/crosscheck/judge.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "core/crosscheck/bounds.h"
#include "core/crosscheck/judge_part.h"
#include "core/crosscheck/scratch.h"
#include "core/half.h"

namespace qwen::crosscheck {
namespace {

// Median bound over root mean square of the values, beyond which a check cannot discriminate.
constexpr double kMaxSpread = 0.02;
// Elements whose bound is computed to find that median, and at first: if none of those is wider
// than half the limit, more than half of all are so with a probability of 1/8 at most, in one
// output of the hundreds of a run.
constexpr std::uint64_t kSampled = 63;
constexpr std::uint64_t kSampledFirst = 3;
// Elements of an output that a thread judges at a time, in whole rows. What is found does not
// depend on who judges which.
constexpr std::int64_t kPartElements = 4096;
// Failed elements of a part that are looked at by their own bounds, at first.
constexpr std::int64_t kPartExact = 16;

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

// Rows of an op's outputs that are judged by themselves.
struct Part {
  std::int64_t first_row;
  std::vector<Tensor> expected, got;
  Bounds bounds;
  std::vector<JudgedPart> judged;  // of each output
};

// The op on rows [begin, end) of `n_rows` alone: those tokens of the step.
Op rows_of(const Op& op, std::int64_t n_rows, std::int64_t begin, std::int64_t end) {
  Op rows = op;
  for (const Operand& operand : operands(rows)) {
    Tensor& t = *operand.tensor;
    const bool is_shared = operand.access == Access::kConstant || is_cache(operand) ||
                           operand.name == "pages" ||
                           (std::holds_alternative<TakeRows>(op) && operand.name == "x");
    if (!is_shared && t.rank > 0 && t.shape[0] == n_rows) t = t.slice(begin, end);
  }
  return rows;
}

std::vector<Tensor> slices(const std::vector<Tensor>& tensors, std::int64_t begin,
                           std::int64_t end) {
  std::vector<Tensor> rows;
  for (const Tensor& t : tensors) rows.push_back(t.slice(begin, end));
  return rows;
}

std::vector<Part> judged_parts(const Op& op, const std::vector<Tensor>& expected,
                               const std::vector<Tensor>& got,
                               const std::vector<Contract>& contracts,
                               const JudgeOptions& options) {
  const std::int64_t n_rows = got[0].shape[0];
  const std::int64_t step = std::max<std::int64_t>(1, kPartElements / row_size(got[0]));
  const std::int64_t n_parts = (n_rows + step - 1) / step;
  std::vector<std::optional<Part>> parts(static_cast<std::size_t>(n_parts));
  const auto judge_some = [&](std::int64_t first, std::int64_t past) {
    for (std::int64_t p = first; p < past; ++p) {
      const std::int64_t begin = p * step;
      const std::int64_t end = std::min(n_rows, begin + step);
      const std::vector<Tensor> want = slices(expected, begin, end);
      Part part{begin,
                want,
                slices(got, begin, end),
                Bounds(rows_of(op, n_rows, begin, end), want, contracts),
                {}};
      for (std::size_t n = 0; n < want.size(); ++n) {
        part.judged.push_back(
            judge_part(want[n], part.got[n], part.bounds, n, kPartExact, options.by_row));
      }
      parts[static_cast<std::size_t>(p)] = std::move(part);
    }
  };
  if (options.host != nullptr) {
    options.host->parallel_for(n_parts, 1, judge_some);
  } else {
    judge_some(0, n_parts);
  }
  std::vector<Part> all;
  for (std::optional<Part>& part : parts) all.push_back(std::move(*part));
  return all;
}

// The spread of some sampled values stands for that of all.
Spread spread_of(std::vector<Part>& parts, std::size_t output, const Tensor& expected) {
  const std::int64_t n = expected.size();
  double squares = 0;
  double largest = 0;
  for (const Part& part : parts) {
    squares += part.judged[output].sum_of_squares;
    largest = std::max(largest, part.judged[output].largest);
  }
  const double rms = std::sqrt(squares / static_cast<double>(n));
  if (!std::isfinite(rms)) return {.median = kInfinity};
  if (rms == 0) return {};
  std::int64_t too_wide = 0;
  for (const Part& part : parts) {
    too_wide += part.bounds.count_beyond(output, part.expected[output].size(),
                                         part.judged[output].largest, largest);
  }
  const double beyond = static_cast<double>(too_wide) / static_cast<double>(n);
  const std::int64_t part_size = parts[0].expected[output].size();  // of all but the last
  std::vector<double> sampled;
  const std::uint64_t n_sampled = std::min(kSampled, static_cast<std::uint64_t>(n));
  for (std::uint64_t k = 0; k < n_sampled; ++k) {
    const std::int64_t at = scattered(k, n);
    Bounds& bounds = parts[static_cast<std::size_t>(at / part_size)].bounds;
    sampled.push_back(bounds.at(output, at % part_size));
    const double widest = *std::max_element(sampled.begin(), sampled.end());
    if (k + 1 == kSampledFirst && widest <= kMaxSpread / 2 * rms) {
      return {.median = widest / rms, .beyond = beyond};
    }
  }
  const auto middle = sampled.begin() + static_cast<std::ptrdiff_t>(sampled.size() / 2);
  std::nth_element(sampled.begin(), middle, sampled.end());
  return {.median = *middle / rms, .beyond = beyond};
}

// Adds what was found out about elements from `first` on.
void add(Judgement& all, Judgement part, std::int64_t first) {
  const auto moved = [first](Element e) {
    e.index += first;
    return e;
  };
  all.n_elements += part.n_elements;
  if (part.worst.ratio() > all.worst.ratio()) all.worst = moved(part.worst);
  for (Row& row : part.rows) {
    row.worst = moved(row.worst);
    all.rows.push_back(row);
  }
  if (part.verdict != Verdict::kFail) return;
  all.verdict = Verdict::kFail;
  if (all.n_failed == 0) all.first = moved(part.first);
  all.n_failed += part.n_failed;
  for (const std::int64_t i : part.failed) {
    if (all.failed.size() < Judgement::kMaxListed) all.failed.push_back(first + i);
  }
}

// What the parts say together. Of the elements that passed by a lower limit of their bound, only
// those of the largest errors of all parts are looked at once more.
Judgement merged(std::vector<Part>& parts, std::size_t output, const Tensor& expected,
                 const Tensor& got) {
  struct Passed {
    double error;
    std::int64_t index;  // in its part
    Part* part;
  };
  Judgement all;
  std::vector<Passed> passed;
  const std::int64_t per_row = row_size(got);
  for (Part& part : parts) {
    JudgedPart& judged = part.judged[output];
    // While there is room in the list, all that belongs into it is found.
    if (!judged.is_exact && all.failed.size() < Judgement::kMaxListed) {
      std::vector<Row> rows = std::move(judged.judgement.rows);
      judged = judge_part(part.expected[output], part.got[output], part.bounds, output,
                          Judgement::kMaxListed, false);
      judged.judgement.rows = std::move(rows);
    }
    for (const auto& [error, i] : judged.passed.kept()) passed.push_back({error, i, &part});
    add(all, std::move(judged.judgement), part.first_row * per_row);
  }
  std::stable_sort(passed.begin(), passed.end(),
                   [](const Passed& a, const Passed& b) { return a.error > b.error; });
  for (const Passed& p : std::span(passed).first(std::min(passed.size(), LargestErrors::kKept))) {
    const std::int64_t i = p.part->first_row * per_row + p.index;
    const Element e{i, got.f32()[i], expected.f32()[i], p.part->bounds.at(output, p.index)};
    if (e.ratio() > all.worst.ratio()) all.worst = e;
  }
  if (all.verdict == Verdict::kPass) {
    all.spread = spread_of(parts, output, expected);
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
  parts.push_back({0, {expected}, {got}, Bounds(std::move(given)), {}});
  parts[0].judged.push_back(
      judge_part(expected, got, parts[0].bounds, 0, Judgement::kMaxListed, false));
  return merged(parts, 0, expected, got);
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
                                   : merged(parts, n, expected[n], got[n]));
    all.back().output = operand.name;
  }
  return all;
}

}  // namespace qwen::crosscheck
