// Numeric contract: how an op rounds on a backend. Bounds on the difference between two backends
// are computed from their contracts and the op's actual inputs, element by element, never guessed.
#pragma once

#include <cstdint>
#include <vector>

#include "core/ops.h"

namespace qwen {

struct Contract {
  // Longest chain of FP32 additions behind one sum of the op (a plain loop: its length; vector
  // lanes: length / lanes plus the depth of the final reduction). 0: sums are taken in FP64.
  std::int64_t sum_depth = 0;
  // Attention only: the same for the sum over keys of probability times value.
  std::int64_t value_sum_depth = 0;
  // Additions truncate instead of rounding to nearest (tensor cores): errors no longer cancel, so
  // only the linear bound holds. A depth then counts unit roundoffs 2^-24, several per step.
  bool truncates = false;
  // Relative rounding of the operands before they are multiplied: of Gemm's x and Attention's q, of
  // Gemm's weight, of Attention's probabilities. 0: as stored. (F16: 2^-11)
  double input_unit = 0;
  double weight_unit = 0;
  double probability_unit = 0;
  // The smallest step of a rounded input: below it the rounding is absolute.
  double input_step = 0;
};

// Bounds on |computed - exact| per element, for an op that follows `contract`.
struct Tolerance {
  std::vector<double> out;  // of the first output
  std::vector<double> lse;  // Attention: of its log-sum-exp
};

// `op` is a float op (not Sample) whose tensors lie in host memory and hold the inputs as they are
// before it runs; outputs are not read. `exact` is the op's first output after an exact run, as the
// reference computes it, and `exact_lse` Attention's second.
//
// Derivations: Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, sections 3.1
// and 4.2; u = 2^-24. For a dot product of depth h with A = sum |w||x|: error <= g(h) A, where g(h)
// = min(h u / (1 - h u), lambda sqrt(h) u). The second form holds with a probability of 1 - 10^-3
// over 10^10 checks (Higham & Mary 2019, doi:10.1137/18M1226312), lambda = 8.8.
Tolerance tolerance(const Op& op, const Contract& contract, const Tensor& exact,
                    const Tensor& exact_lse = {});

// The same bounds of a Gemm, one by one: each costs as much as its element. The tensors must
// outlive it.
class GemmTolerance {
 public:
  GemmTolerance(const Gemm& op, const Contract& contract, const Tensor& exact);
  // Of element i of the output.
  double at(std::int64_t i);
  // A lower limit of at(i), without a look at the weights: sum |w||x| is at least |y|.
  double at_least(std::int64_t i) const;
  // Of a sum y of products with sum |w||x| = `sum` and sum |w| = `weight_sum`.
  double of(double y, double sum, double weight_sum) const;

 private:
  Gemm op_;
  Tensor exact_;
  double growth_;
  double operands_;        // relative rounding of a product's two operands together
  double input_step_;      // of Contract
  std::int64_t row_ = -1;  // of the weight, decoded in weights_
  std::vector<float> weights_;
};

}  // namespace qwen
