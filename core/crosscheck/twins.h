// Twins: runs of the oracle in which every op is off at random by about as much as rounding makes
// it on the path. How far they end up from the exact run says how far a right path may be off deep
// in the network, where no closed bound is known.
//
// The bounds of contract.h would do as noise, but those of a product cost as much as the product
// itself in FP64, and hold for the worst of 10^10 elements. Here the errors have the size that is
// typical:
//
// - A sum of depth h is that of slightly other terms, sum w_c x_c (1 + psi_c), and typically
//   |psi_c| is about sqrt(h) u: h roundings, each to nearest, independent and without bias (Higham
//   & Mary 2019, doi:10.1137/18M1226312; contract.h takes the tail). Sums
//   that truncate have a bias of u/2 per addition, so |psi_c| is about h u / 2.
// - So noise on an op's input stands for what its sums do and for what it rounds its operands to:
//   x_c (1 + psi_c) costs one pass over x and reaches every output as sqrt(sum w_c^2 x_c^2) psi,
//   which is what independent errors of the products amount to.
// - Where the partial sums grow in one direction, the errors of the terms do not cancel but follow
//   the sum: y (1 + phi), |phi| about the same.
// - Functions that are taken element by element err relative to their result: y (1 + phi), by
//   sqrt(n) u for n roundings.
// - The store to FP32 needs no noise: twins store, too, and what they store is other values.
//
// Together never more than what contract.h allows, for sums of a depth of 4 and more (truncating
// ones: twice that). The noise has the standard deviation of an error that is uniform within
// +-psi, and a random sign, as in stochastic arithmetic (Vignes 2004, Numerical Algorithms 37).
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "core/backend.h"

namespace qwen::crosscheck {

// What an op of a twin is moved by. Units are relative and the largest that an error typically has;
// a tensor is empty where nothing is moved.
struct Noise {
  Tensor input = {};
  double input_unit = 0;
  double input_step = 0;      // absolute
  double int8_fine_from = 0;  // beyond 0: the input is rounded first (core/int8.h)
  Tensor output = {};
  double output_unit = 0;
};

// For a path that runs `op` by `contract`; the tensors are those of `op`.
Noise noise(const Op& op, const Contract& contract);

// Watches a backend in host memory that runs `n_groups` copies of the same rows one after the other
// as one step, and makes twins of all copies but the first: it moves their rows of an op's input
// while the op runs, and of its output.
class TwinNoise : public Observer {
 public:
  TwinNoise(std::int64_t n_groups, std::uint64_t seed) : n_groups_(n_groups), random_(seed) {}

  // Before a step: the contracts of its ops, in order, as the path runs them.
  void begin(std::vector<Contract> contracts);
  void before(const Op& op, const Tap& tap) override;
  void after(const Op& op, const Tap& tap) override;

 private:
  void move(const Tensor& t, double unit, double step);
  void round_as_int8(const Tensor& t);

  std::int64_t n_groups_;
  std::mt19937_64 random_;
  std::vector<Contract> contracts_;
  std::size_t next_ = 0;
  Noise noise_;                  // of the op that runs
  std::vector<float> original_;  // its input
};

}  // namespace qwen::crosscheck
