// How far apart two paths' logits of one token are.
#pragma once

#include <cstdint>
#include <span>

namespace qwen::crosscheck {

struct LogitComparison {
  double kl = 0;     // nats, KL(oracle || path) of the softmax of both
  double drift = 0;  // RMS over the vocabulary of the difference
  std::int32_t oracle_top = 0;
  std::int32_t path_top = 0;  // the likeliest tokens
  // By how much the oracle prefers its own choice to the path's.
  double margin = 0;

  bool flipped() const { return oracle_top != path_top; }
};

// Of the same size, not empty. kl and drift are not-a-number if a logit is.
LogitComparison compare_logits(std::span<const float> oracle, std::span<const float> path);

// RMS of the differences of two vectors of the same size; not-a-number if one of them has one.
double rms_difference(std::span<const float> a, std::span<const float> b);

double rms(std::span<const float> values);

// Whether a flip is within what logits that may be off by `bound` can bring about: the choice of
// the oracle may lose that much while the other gains it.
bool explains_flip(double margin, double bound);

}  // namespace qwen::crosscheck
