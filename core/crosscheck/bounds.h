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

// A part of an output: elements by their index in it, flat.
struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
  bool holds(std::int64_t i) const { return begin <= i && i < end; }
};

// Of a part of each output. An element's index is the one that it has in the whole.
//
// Those of a Gemm's elements cost as much as the elements, and a lower limit of them is enough for
// nearly all: they are computed when asked for.
class Bounds {
 public:
  using Firsts = std::array<std::int64_t, 2>;  // of each output: index of the first element

  explicit Bounds(GemmTolerance gemm) : gemm_(std::move(gemm)) {}
  Bounds(Tolerance given, const Firsts& firsts)
      : sums_{std::move(given.out), std::move(given.lse)}, firsts_(firsts) {}
  // The sum of tolerance() (core/contract.h) of all contracts: of an op on a part of the rows
  // alone. `expected` holds its outputs after an exact run.
  Bounds(const Op& rows, const std::vector<Tensor>& expected,
         const std::vector<Contract>& contracts, const Firsts& firsts);

  // Of element i of an output.
  double at_least(std::size_t output, std::int64_t i) const {
    return gemm_ ? gemm_->at_least(i) : sum(output, i);
  }
  // A lower limit will do if it is at least `enough`.
  double at(std::size_t output, std::int64_t i,
            double enough = std::numeric_limits<double>::infinity()) {
    return gemm_ ? gemm_->at(i, enough) : sum(output, i);
  }
  // Whether at_least() is less than at().
  bool are_limits() const { return gemm_.has_value(); }
  // Whether one of the errors |have - want| of `elements` may be beyond `share` of its bound, or is
  // larger than `largest`, or is none. `have` and `want` are whole outputs.
  bool stand_out(std::size_t output, const float* have, const float* want, Range elements,
                 double share, double largest) const;
  // How many of `elements` have an at_least() beyond `limit`; `largest` is their largest |value|.
  std::int64_t count_beyond(std::size_t output, Range elements, double largest, double limit) const;

 private:
  double sum(std::size_t output, std::int64_t i) const {
    return sums_[output][static_cast<std::size_t>(i - firsts_[output])];
  }

  std::array<std::vector<double>, 2> sums_;
  Firsts firsts_ = {};
  std::optional<GemmTolerance> gemm_;
};

}  // namespace qwen::crosscheck
