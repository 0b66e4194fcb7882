// The bounds of an Attention's outputs (contract.h), row by row.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/contract.h"
#include "core/ops.h"

namespace qwen {

// Under all contracts together: the sum of their bounds. What does not depend on a contract is
// computed once. The tensors must outlive it.
class AttentionTolerance {
 public:
  AttentionTolerance(const Attention& op, const std::vector<Contract>& contracts,
                     const Tensor& exact, const Tensor& exact_lse);

  // Cached keys, with their values, that the op reads: of all its sequences and heads.
  std::int64_t n_keys() const { return n_keys_; }
  // Decodes keys [begin, end). Any threads may load ranges that do not overlap.
  void load(std::int64_t begin, std::int64_t end);

  // The bounds of rows [begin, end) of the outputs, which have one per token and query head, once
  // all keys are loaded. Any threads may ask.
  Tolerance rows(std::int64_t begin, std::int64_t end) const;

 private:
  // What follows from a contract.
  struct Rounding {
    double score;  // relative to sum |q||k|
    double value_growth;
    double probability_unit;
    double probability_step;
  };
  // The first `n` positions of a sequence, head by head.
  struct Cached {
    std::int32_t seq;
    std::int64_t n;
    std::int64_t first_key;
  };
  struct Sums;

  const Cached& cached(std::int32_t seq) const;
  void sum_scores(std::int64_t row, const float* keys, Sums& sums) const;
  void sum_values(const float* values, Sums& sums) const;
  void bound_row(std::int64_t row, const Sums& sums, double* out, double& lse) const;

  Attention op_;
  Tensor exact_, exact_lse_;
  std::vector<Rounding> roundings_;
  bool rounds_probabilities_ = false;
  std::vector<Cached> sequences_;
  std::int64_t n_keys_ = 0;
  std::unique_ptr<float[]> keys_, values_;  // (n_keys, head_dim)
};

}  // namespace qwen
