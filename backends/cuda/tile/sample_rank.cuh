// The candidates of a Sample op as integers, and the steps of core/sampler.cpp in terms of them.
// Plain arithmetic of one thread, for host and device.
#pragma once

#include <Random123/philox.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "core/sampler.h"

namespace qwen::cuda {

// A candidate as one number: the larger rank comes first (the larger logit, among equals the lower
// id), and no two are equal. High word: the logit's bits in an order-preserving form (Herf 2001,
// "Radix tricks"); low word: ~id. 0: no candidate, which is what a not-a-number logit gives.
using Rank = std::uint64_t;

__host__ __device__ inline Rank rank_of(float logit, int id) {
  if (logit != logit) return 0;
  const auto bits = std::bit_cast<std::uint32_t>(logit == 0 ? 0.0f : logit);  // -0 equals 0
  const std::uint32_t key = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
  return (Rank{key} << 32) | ~static_cast<std::uint32_t>(id);
}

__host__ __device__ inline float logit_of(Rank rank) {
  const auto key = static_cast<std::uint32_t>(rank >> 32);
  return std::bit_cast<float>((key >> 31) != 0 ? key ^ 0x80000000u : ~key);
}

__host__ __device__ inline int id_of(Rank rank) {
  return static_cast<int>(~static_cast<std::uint32_t>(rank));
}

// The greedy choice, given the largest rank of all.
__host__ __device__ inline int greedy_id(Rank top) {
  return top != 0 && logit_of(top) > -INFINITY ? id_of(top) : 0;
}

// A penalty of 1 changes no bit of any logit and needs no branch, which would make every load wait
// for the penalty.
__host__ __device__ inline float penalised(float logit, bool seen, float penalty) {
  if (!seen) return logit;
  return logit > 0 ? logit / penalty : logit * penalty;
}

// The weight of a candidate beside the first one, `top`.
__host__ __device__ inline double weight_of(Rank rank, Rank top, float temp) {
  const float logit = logit_of(rank);
  const float best = logit_of(top);
  const double distance = logit == best ? 0.0 : double{logit} - double{best};
  return exp(distance / double{temp});
}

// uniform_draw() of core/sampler.cpp.
__host__ __device__ inline double uniform_of(const SampleParams& params, std::int32_t pos) {
  const r123::Philox4x32::ctr_type counter{{static_cast<std::uint32_t>(pos), params.stream, 0, 0}};
  const r123::Philox4x32::key_type key{{params.seed_low, params.seed_high}};
  const auto bits = r123::Philox4x32{}(counter, key);
  const std::uint64_t word = (static_cast<std::uint64_t>(bits[1]) << 32) | bits[0];
  return static_cast<double>(word >> 11) * 0x1p-53;
}

// What a running sum of weights, in order, has to come to.
struct Goal {
  double sum;
  bool beyond;  // exceed it, not only reach it
};

__host__ __device__ inline bool comes_to(double sum, Goal goal) {
  return goal.beyond ? sum > goal.sum : sum >= goal.sum;
}

// The index of the first of `n` rising sums that comes to `goal`, n if none does.
__host__ __device__ inline int first_that_comes_to(const double* sums, int n, Goal goal) {
  int first = 0;
  for (int end = n; first < end;) {
    const int middle = (first + end) / 2;
    if (comes_to(sums[middle], goal)) {
      end = middle;
    } else {
      first = middle + 1;
    }
  }
  return first;
}

// What is known of the candidates that are not in a list.
struct ListScope {
  bool complete;  // there are none
  double total;   // else: the sum of the weights of all, in the list or not
};

// Steps 4 to 6 of sampler.h over the weights of the first `n` >= 1 candidates in order, which
// become their running sums. The index of the chosen one, or -1 if that is not among them.
__host__ __device__ inline int choose_in_list(double* weights, int n, ListScope scope,
                                              const SampleParams& params, double uniform) {
  double sum = 0;
  for (int i = 0; i < n; ++i) {
    if (weights[i] < params.min_p) {
      n = i;
      scope.complete = true;
      break;
    }
    sum += weights[i];
    weights[i] = sum;
  }
  if (n == 0) return 0;  // min_p above 1
  const double total = scope.complete ? sum : scope.total;
  const int last = first_that_comes_to(weights, n, {params.top_p * total, false});
  if (last == n && !scope.complete) {
    if (params.top_p < 1) return -1;
    const int chosen = first_that_comes_to(weights, n, {uniform * total, true});
    return chosen < n ? chosen : -1;
  }
  const int n_kept = last < n ? last + 1 : n;
  const int chosen = first_that_comes_to(weights, n_kept, {uniform * weights[n_kept - 1], true});
  return chosen < n_kept ? chosen : n_kept - 1;
}

// The slow way looks for the first candidate whose running sum comes to a goal digit by digit of
// its rank, from the sums of the weights by the next digit.
inline constexpr int kDigitBits = 4;
inline constexpr int kDigits = 1 << kDigitBits;

struct Digit {
  int value;
  double above;    // the running sum before the candidates with this digit
  double through;  // and with them
};

// The last digit with a sum if rounding leaves all of them short of the goal.
__host__ __device__ inline Digit pick_digit(const double* sums, double above, Goal goal) {
  Digit pick{0, above, above};
  for (int value = kDigits - 1; value >= 0; --value) {
    if (sums[value] == 0) continue;
    pick = {value, pick.through, pick.through + sums[value]};
    if (comes_to(pick.through, goal)) break;
  }
  return pick;
}

// Whether the digit of a rank at `shift` is the same for all ids below n_vocab: all ones, as it is
// of the complement of a number.
__host__ __device__ inline bool is_padding(int shift, int n_vocab) {
  return shift < 32 && (static_cast<std::uint32_t>(n_vocab - 1) >> shift) == 0;
}

}  // namespace qwen::cuda
