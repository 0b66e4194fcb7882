#include "core/sampler.h"

#include <Random123/philox.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace qwen {
namespace {

struct Candidate {
  float logit;
  std::int32_t id;
};

bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

float penalised(float logit, bool seen, float penalty) {
  if (!seen || penalty == 1.0f) return logit;
  return logit > 0 ? logit / penalty : logit * penalty;
}

std::int32_t greedy(std::span<const float> logits, std::span<const std::int8_t> seen,
                    float penalty) {
  std::int32_t best = 0;
  float best_logit = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float logit = penalised(logits[i], seen[i] != 0, penalty);
    if (logit > best_logit) {
      best_logit = logit;
      best = static_cast<std::int32_t>(i);
    }
  }
  return best;
}

// The best `k` candidates in order (all of them if k is 0).
std::vector<Candidate> ranked(std::span<const float> logits, std::span<const std::int8_t> seen,
                              const SampleParams& params) {
  const std::size_t limit =
      params.top_k > 0 ? std::min<std::size_t>(params.top_k, logits.size()) : logits.size();
  std::vector<Candidate> best;  // a heap whose front is the worst of the kept ones
  best.reserve(limit);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const Candidate c{penalised(logits[i], seen[i] != 0, params.repeat_penalty),
                      static_cast<std::int32_t>(i)};
    if (std::isnan(c.logit)) continue;
    if (best.size() < limit) {
      best.push_back(c);
      std::push_heap(best.begin(), best.end(), ranks_before);
    } else if (ranks_before(c, best.front())) {
      std::pop_heap(best.begin(), best.end(), ranks_before);
      best.back() = c;
      std::push_heap(best.begin(), best.end(), ranks_before);
    }
  }
  std::sort_heap(best.begin(), best.end(), ranks_before);
  return best;
}

}  // namespace

double uniform_draw(const SampleParams& params, std::int32_t pos) {
  const r123::Philox4x32::ctr_type counter{{static_cast<std::uint32_t>(pos), params.stream, 0, 0}};
  const r123::Philox4x32::key_type key{{params.seed_low, params.seed_high}};
  const auto bits = r123::Philox4x32{}(counter, key);
  const std::uint64_t word = (static_cast<std::uint64_t>(bits[1]) << 32) | bits[0];
  return static_cast<double>(word >> 11) * 0x1p-53;
}

std::int32_t sample(std::span<const float> logits, std::span<const std::int8_t> seen,
                    const SampleParams& params, std::int32_t pos) {
  if (params.temp == 0) return greedy(logits, seen, params.repeat_penalty);
  const std::vector<Candidate> candidates = ranked(logits, seen, params);
  if (candidates.empty()) return 0;

  std::vector<double> weights;
  weights.reserve(candidates.size());
  double total = 0;
  for (const Candidate& c : candidates) {
    // Two infinite logits (a broken model) must not become 0/0.
    const double distance =
        c.logit == candidates[0].logit ? 0.0 : double{c.logit} - candidates[0].logit;
    const double weight = std::exp(distance / params.temp);
    if (weight < params.min_p) break;
    weights.push_back(weight);
    total += weight;
  }
  double kept = 0;
  std::size_t n = 0;
  while (n < weights.size()) {
    kept += weights[n++];
    if (kept >= params.top_p * total) break;
  }
  const double target = uniform_draw(params, pos) * kept;
  double sum = 0;
  for (std::size_t i = 0; i + 1 < n; ++i) {
    sum += weights[i];
    if (target < sum) return candidates[i].id;
  }
  return candidates[n - 1].id;
}

}  // namespace qwen
