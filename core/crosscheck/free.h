// Free mode: the path and the oracle each run alone on the same tokens, and how far they are apart
// is compared with twins of the oracle (twins.h). What op by op is too small to see, or lies in how
// the path puts its ops together, adds up here.
#pragma once

#include <cstdint>
#include <vector>

#include "core/crosscheck/sides.h"

namespace qwen::crosscheck {

struct CrossCheckOptions;
struct Models;

// How far a token's values are off those of the oracle, as RMS of the difference relative to their
// own RMS (the first token's may be a thousand times those of the others): the residual stream
// after a layer, or with layer -1 the logits, of the last token of a sequence in each step, and
// where the choices differ.
struct Drift {
  std::int32_t seq = 0;
  std::int64_t token = 0;  // its position
  int layer = -1;
  double path = 0;
  double twins = 0;  // the largest of the twins; with a cache in F16 that of all tokens

  // path / twins; 0 if the path does not drift, not-a-number if a value is.
  double ratio() const;
};

// How many times the largest drift of the twins the path may drift: the largest of 16 is not the
// largest there is.
inline constexpr double kDriftFactor = 3;

struct FreeResult {
  std::int64_t n_tokens = 0;
  double kl_mean = 0, kl_max = 0;  // nats, KL(oracle || path), of all tokens
  double top1_agree = 0;           // share of the tokens
  // A flip is explained by logits that are off by kDriftFactor times the twins' drift.
  std::int64_t n_flips = 0, n_flips_explained = 0;
  std::vector<Drift> drift;
  Drift worst_drift;  // of the largest ratio
  bool agrees = false;
};

// `texts` are those of `options` or go on from them: then the tokens that follow are given, too,
// and the path does not choose them. The path's logits come from its production form (unobserved);
// its residual streams from a second, observed run of each step before it. `models` and the
// backends as for cross_check().
FreeResult run_free(const Sides& sides, const Models& models, const CrossCheckOptions& options,
                    const std::vector<std::vector<std::int32_t>>& texts);

}  // namespace qwen::crosscheck
