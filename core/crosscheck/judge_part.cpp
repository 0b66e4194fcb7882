#include "core/crosscheck/judge_part.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/rounding.h"

namespace qwen::crosscheck {
namespace {

// Elements of a product's row that passed by a lower limit of their bound, of which it is computed
// to find the worst.
constexpr std::ptrdiff_t kRowTried = 8;
// Elements that are looked at one by one only if one of them stands out.
constexpr std::int64_t kAtOnce = 256;

double largest_of(const float* values, std::int64_t n) {
  Lanes largest;
  in_lanes(n, [&](std::int64_t i, std::int64_t lane) {
    const double size = std::abs(values[i]);
    largest.v[lane] = largest.v[lane] < size ? size : largest.v[lane];
  });
  return *std::max_element(largest.v, largest.v + Lanes::kCount);
}

Row judge_row(const Tensor& expected, const Tensor& got, Bounds& bounds, std::size_t output,
              std::int64_t row) {
  if (same_bits(expected, got, row, row + 1)) return {};
  const std::int64_t begin = row * row_size(got);
  const auto element = [&](std::int64_t i) {
    return Element{i, got.f32()[i], expected.f32()[i], bounds.at_least(output, i)};
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

JudgedPart judge_numbers(const Tensor& expected, const Tensor& got, Bounds& bounds,
                         std::size_t output, Range elements, std::int64_t n_exact) {
  JudgedPart part{.judgement = {.n_elements = elements.size()}};
  Judgement& j = part.judgement;
  const std::int64_t per_row = row_size(got);
  const float* const want = expected.f32();
  const float* const have = got.f32();
  const auto element = [&](std::int64_t i, double tolerance) {
    return Element{i, have[i], want[i], tolerance};
  };
  double widest = 0;  // of the bounds that were computed
  double worst = 0;
  const auto judge_one = [&](std::int64_t i) {
    const double error = std::abs(double{have[i]} - want[i]);
    const double limit = bounds.at_least(output, i);
    if (error <= limit) {  // false for not-a-number
      if (bounds.are_limits()) {
        part.passed.add(error, i);
      } else if (error > worst * limit) {
        j.worst = element(i, limit);
        worst = j.worst.ratio();
      }
      return;
    }
    // Of a whole product that is wrong each bound would cost as much as its element.
    if (bounds.are_limits() && j.n_failed >= n_exact && !(error <= widest)) {
      ++j.n_failed;
      part.is_exact = false;
      return;
    }
    const Element e = element(i, bounds.at(output, i, error));
    widest = std::max(widest, e.tolerance);
    if (e.ratio() > 1) {
      note_failure(j, e, per_row);
    } else {
      part.passed.add(error, i);
    }
  };
  for (std::int64_t begin = elements.begin; begin < elements.end; begin += kAtOnce) {
    const Range some{begin, std::min(elements.end, begin + kAtOnce)};
    const bool stand_out =
        bounds.are_limits()
            ? bounds.stand_out(output, have, want, some, 1, part.passed.least())
            : bounds.stand_out(output, have, want, some, std::min(worst, 1.0), kInfinity);
    if (!stand_out) continue;
    for (std::int64_t i = some.begin; i < some.end; ++i) judge_one(i);
  }
  part.sum_of_squares = sum_of_squares(want + elements.begin, elements.size());
  part.largest = largest_of(want + elements.begin, elements.size());
  return part;
}

}  // namespace

void LargestErrors::add(double error, std::int64_t index) {
  if (!(error > least_)) return;
  const auto at = std::find_if(kept_.begin(), kept_.end(),
                               [error](const auto& kept) { return kept.first < error; });
  kept_.insert(at, {error, index});
  if (kept_.size() > kKept) kept_.pop_back();
  if (kept_.size() == kKept) least_ = kept_.back().first;
}

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

JudgedPart judge_part(const Tensor& expected, const Tensor& got, Bounds& bounds, std::size_t output,
                      Range elements, std::int64_t n_exact, bool by_row) {
  JudgedPart part = judge_numbers(expected, got, bounds, output, elements, n_exact);
  if (!by_row) return part;
  const std::int64_t per_row = row_size(got);
  for (std::int64_t row = elements.begin / per_row; row < elements.end / per_row; ++row) {
    part.judgement.rows.push_back(judge_row(expected, got, bounds, output, row));
  }
  return part;
}

}  // namespace qwen::crosscheck
