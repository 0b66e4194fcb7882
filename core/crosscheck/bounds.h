// The bounds of an op's outputs, under all contracts together.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "core/contract.h"

namespace qwen::crosscheck {

// Those of a Gemm's elements cost as much as the elements, and a lower limit of them is enough for
// nearly all: they are computed when asked for.
class Bounds {
 public:
  // As tolerance() (core/contract.h): `expected` holds the outputs of an exact run.
  Bounds(const Op& op, const std::vector<Tensor>& expected, const std::vector<Contract>& contracts);
  // Of the elements of a single output.
  explicit Bounds(std::vector<double> given) { sums_[0] = std::move(given); }

  // Of element i of an output.
  double at_least(std::size_t output, std::int64_t i) const {
    return gemm_ ? gemm_->at_least(i) : sums_[output][static_cast<std::size_t>(i)];
  }
  // A lower limit will do if it is at least `enough`.
  double at(std::size_t output, std::int64_t i,
            double enough = std::numeric_limits<double>::infinity()) {
    return gemm_ ? gemm_->at(i, enough) : sums_[output][static_cast<std::size_t>(i)];
  }
  // Whether at_least() is less than at().
  bool are_limits() const { return gemm_.has_value(); }
  // Whether one of the errors |have - want| of elements [begin, end) may be beyond `share` of its
  // bound, or is larger than `largest`, or is none.
  bool stand_out(std::size_t output, const float* have, const float* want, std::int64_t begin,
                 std::int64_t end, double share, double largest) const;
  // How many of the first n elements have an at_least() beyond `limit`; `largest` is their largest
  // |value|.
  std::int64_t count_beyond(std::size_t output, std::int64_t n, double largest, double limit) const;

 private:
  std::array<std::vector<double>, 2> sums_;
  std::optional<GemmTolerance> gemm_;
};

}  // namespace qwen::crosscheck
