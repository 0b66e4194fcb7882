#include "core/crosscheck/bounds.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace qwen::crosscheck {
namespace {

void add(std::vector<double>& sum, std::vector<double> more) {
  if (sum.empty()) {
    sum = std::move(more);
  } else {
    std::transform(sum.begin(), sum.end(), more.begin(), sum.begin(), std::plus<>());
  }
}

}  // namespace

Bounds::Bounds(const Op& rows, const std::vector<Tensor>& expected,
               const std::vector<Contract>& contracts, const Firsts& firsts)
    : firsts_(firsts) {
  const Tensor lse = expected.size() > 1 ? expected[1] : Tensor();
  for (const Contract& contract : contracts) {
    Tolerance t = tolerance(rows, contract, expected[0], lse);
    add(sums_[0], std::move(t.out));
    add(sums_[1], std::move(t.lse));
  }
}

bool Bounds::stand_out(std::size_t output, const float* have, const float* want, Range elements,
                       double share, double largest) const {
  const double per_size = gemm_ ? gemm_->per_size() : 0;
  const double* const bounds = gemm_ ? nullptr : &sums_[output][elements.begin - firsts_[output]];
  have += elements.begin;
  want += elements.begin;
  const auto any = [&](auto bound) {
    bool found = false;
    for (std::int64_t i = 0; i < elements.size(); ++i) {
      const double error = std::abs(double{have[i]} - want[i]);
      found |= !(error <= share * bound(i)) || error > largest;
    }
    return found;
  };
  return gemm_ ? any([&](std::int64_t i) { return per_size * std::abs(want[i]); })
               : any([&](std::int64_t i) { return bounds[i]; });
}

std::int64_t Bounds::count_beyond(std::size_t output, Range elements, double largest,
                                  double limit) const {
  if (gemm_ && gemm_->per_size() * largest <= limit) return 0;
  std::int64_t count = 0;
  for (std::int64_t i = elements.begin; i < elements.end; ++i) {
    count += !(at_least(output, i) <= limit);
  }
  return count;
}

}  // namespace qwen::crosscheck
