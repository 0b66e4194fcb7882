// Bounds for a chain of ops that a path runs as one and whose values in between it does not keep:
// the bound of each op, carried on through the ops that follow.
#pragma once

#include <map>
#include <vector>

#include "core/backend.h"
#include "core/contract.h"
#include "core/ops.h"

namespace qwen::crosscheck {

// The 2-norms of a weight's rows, computed once for each weight.
class RowNorms {
 public:
  // `host`, in whose memory the weights lie, lends its threads.
  explicit RowNorms(Backend& host) : host_(host) {}
  const std::vector<double>& of(const Tensor& weight);
  Backend& host() const { return host_; }

 private:
  Backend& host_;
  std::map<const std::byte*, std::vector<double>> norms_;
};

// Follows one side along a chain. Tensors are told apart by where they lie; what no op of the chain
// has written is exact.
//
// First-order terms, with a hundredth more for the others: errors are below a hundredth of the
// values, or the check says nothing anyway. Sums of products are bounded by Cauchy and Schwarz,
// sum |w||e| <= |w|_2 |e|_2, so that no bound costs as much as a product.
class ErrorChain {
 public:
  explicit ErrorChain(RowNorms& norms) : norms_(norms) {}

  // After an op: `before` holds its inputs as they were before it (in copies, where it works in
  // place), `op` the same op after an exact run, on the chain's own memory.
  void follow(const Op& op, const Op& before, const Contract& contract);
  // The bounds of a tensor's elements; empty if it is exact.
  const std::vector<double>& of(const Tensor& tensor) const;

 private:
  template <class T>
  std::vector<double> carried(const T& op, const T& before, const Contract& contract);
  double at(const Tensor& tensor, std::int64_t i) const;

  RowNorms& norms_;
  std::map<const std::byte*, std::vector<double>> errors_;
};

}  // namespace qwen::crosscheck
