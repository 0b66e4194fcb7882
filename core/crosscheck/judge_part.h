// Judging a part of an op's output by itself: on any thread, whatever the others hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "core/crosscheck/bounds.h"
#include "core/crosscheck/judge.h"

namespace qwen::crosscheck {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The few largest errors of many, and where they are.
class LargestErrors {
 public:
  // How many: enough to find the worst of a product, whose bounds differ little.
  static constexpr std::size_t kKept = 2;

  // In the order of their indices.
  void add(double error, std::int64_t index);
  // Their sizes and indices, the largest first, of equal ones the one of least index.
  const std::vector<std::pair<double, std::int64_t>>& kept() const { return kept_; }
  // What an error must exceed to be kept.
  double least() const { return least_; }

 private:
  double least_ = 0;
  std::vector<std::pair<double, std::int64_t>> kept_;
};

// What is found out about a part of an output. Indices are those in the whole.
struct JudgedPart {
  // False: some failed elements are only counted, by the bounds of others. They are not listed.
  bool is_exact = true;
  Judgement judgement;        // without its spread, and without the elements of `passed`
  LargestErrors passed = {};  // by a lower limit of their bound: one may be the worst
  // Of the expected values.
  double sum_of_squares = 0;
  double largest = 0;
};

// `elements` of an output that is `expected` and `got`. After n_exact failed elements of a product,
// an error beyond all bounds so far is counted as failed without a look at its own bound. `by_row`:
// the elements are whole rows, and each is judged by itself, too.
JudgedPart judge_part(const Tensor& expected, const Tensor& got, Bounds& bounds, std::size_t output,
                      Range elements, std::int64_t n_exact, bool by_row);

// Elements of a row: a token's.
std::int64_t row_size(const Tensor& t);

// One more element that failed, of rows of `per_row` elements.
void note_failure(Judgement& j, const Element& e, std::int64_t per_row);

}  // namespace qwen::crosscheck
