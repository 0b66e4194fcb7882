#include "core/crosscheck/logits.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/sampler.h"

namespace qwen::crosscheck {
namespace {

// log sum exp
double log_total(std::span<const float> logits, double max) {
  double total = 0;
  for (const float l : logits) total += std::exp(l - max);
  return max + std::log(total);
}

std::int32_t likeliest(std::span<const float> logits) {
  const std::vector<std::int8_t> unseen(logits.size());
  return sample(logits, unseen, {}, 0);  // greedy
}

}  // namespace

LogitComparison compare_logits(std::span<const float> oracle, std::span<const float> path) {
  LogitComparison c{.drift = rms_difference(oracle, path),
                    .oracle_top = likeliest(oracle),
                    .path_top = likeliest(path)};
  const auto top = [](std::span<const float> logits, std::int32_t id) {
    return double{logits[static_cast<std::size_t>(id)]};
  };
  c.margin = top(oracle, c.oracle_top) - top(oracle, c.path_top);
  const double oracle_log = log_total(oracle, top(oracle, c.oracle_top));
  const double path_log = log_total(path, top(path, c.path_top));
  for (std::size_t i = 0; i < oracle.size(); ++i) {
    const double log_p = oracle[i] - oracle_log;
    c.kl += std::exp(log_p) * (log_p - (path[i] - path_log));
  }
  if (c.kl < 0) c.kl = 0;  // the sum's rounding
  return c;
}

double rms_difference(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = double{a[i]} - b[i];
    sum += d * d;
  }
  return std::sqrt(sum / static_cast<double>(a.size()));
}

double rms(std::span<const float> values) {
  double sum = 0;
  for (const float v : values) sum += double{v} * v;
  return std::sqrt(sum / static_cast<double>(values.size()));
}

bool explains_flip(double margin, double bound) { return margin <= 2 * bound; }

}  // namespace qwen::crosscheck
