// Numeric contract: how an op rounds on a backend. Bounds on the difference between two backends
// are computed from their contracts and the op's actual inputs, element by element, never guessed.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
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
  // Gemm that truncates: a step adds this many consecutive products to a sum, whatever the order of
  // the steps. 0: nothing is known of what is added together.
  std::int64_t sum_block = 0;
  // Relative rounding of the operands before they are multiplied: of Gemm's x and Attention's q, of
  // Gemm's weight, of Attention's probabilities. 0: as stored. (F16: 2^-11)
  double input_unit = 0;
  double weight_unit = 0;
  double probability_unit = 0;
  // The smallest step of a rounded input or probability: below it the rounding is absolute.
  double input_step = 0;
  double probability_step = 0;  // beside the largest probability
  // Gemm: x and the weight are rounded to the nearest F16 times these, powers of two, which the
  // units and steps above follow from. So it can be repeated bit for bit (crosscheck/rounded.h).
  // 0: not known.
  float input_scale = 0;
  float weight_scale = 0;
  // Gemm: the weight's minima, times sums of x, are terms of their own beside what they are
  // subtracted from.
  bool separate_minima = false;
  // Gemm: x is rounded as core/int8.h defines, which has to be repeated (crosscheck/rounded.h):
  // bounds are of what is left, for an x that is rounded already. 0: it is not.
  double int8_fine_from = 0;
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
//
// A Gemm that truncates, with sum_block = b: each of its h units is one of the largest number that
// a step works on, a product or a partial sum. Partial sums consist of whole blocks of b products,
// so none is larger than M = max(sum of the blocks' positive sums, - sum of their negative sums,
// max |w x|), whatever the order, and error <= g(h) M. A is by far larger where signs are mixed.
//
// Terms w + m and -m instead of w (separate_minima): A = sum (|w| + 2 |m|) |x|.
//
// Attention's output, probabilities p rounded with unit u_p: sum p |v| u_p bounds the error, and so
// does, since roundings to nearest are independent of each other and zero on average, lambda u_p
// sqrt(sum p^2 v^2) with the same probability (Hoeffding's inequality: 2 exp(-lambda^2 / 2) times
// 10^10 is below 10^-3 for lambda = 7.9). The smaller of the two is taken.
Tolerance tolerance(const Op& op, const Contract& contract, const Tensor& exact,
                    const Tensor& exact_lse = {});

// The bounds of a Gemm under all contracts together, one by one: each costs as much as its element.
// The tensors must outlive it.
class GemmTolerance {
 public:
  GemmTolerance(const Gemm& op, const std::vector<Contract>& contracts, const Tensor& exact);
  // Of element i of the output; or a lower limit of it, as soon as that is known to be at least
  // `enough`.
  double at(std::int64_t i, double enough = std::numeric_limits<double>::infinity());
  // A lower limit of at(i), without a look at the weights: sum |w||x| and the largest partial sum
  // are at least |y|.
  double at_least(std::int64_t i) const { return per_size_ * std::abs(exact_.f32()[i]); }
  // at_least() of an element of 1; it is proportional to it.
  double per_size() const { return per_size_; }
  // What the bound of a sum y of products follows from.
  struct Sizes {
    double sum = 0;          // of |w||x|
    double minima = 0;       // sum of |m||x|, m the minimum that w has had subtracted
    double weight = 0;       // sum of |w|
    double partial = 0;      // M of blocks of `block` products
    std::int64_t block = 0;  // 0: M is not known
  };
  double of(double y, const Sizes& sizes) const;

 private:
  // What follows from a contract.
  struct Rounding {
    double growth;
    std::int64_t sum_block;
    bool minima;
    double operands;  // relative, of a product's two operands together
    double input_step;
  };
  void decode_up_to(std::int64_t n_cols);

  Gemm op_;
  Tensor exact_;
  std::vector<Rounding> roundings_;
  double per_size_ = 0;       // of()'s least value for y = 1
  std::int64_t block_ = 0;    // the first contract's that has one
  std::int64_t row_ = -1;     // of the weight,
  std::int64_t decoded_ = 0;  // whose first columns are decoded in weights_
  std::vector<float> weights_;
  std::vector<float> minima_;  // of them; empty if no contract asks
};

}  // namespace qwen
