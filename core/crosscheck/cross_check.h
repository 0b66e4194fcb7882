// Cross-check: runs a path under test and an oracle over the same tokens and says whether they
// agree, and if not, where and why. (attest.h, shadow.h, cause.h)
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/crosscheck/attest.h"
#include "core/crosscheck/shadow.h"
#include "core/model.h"

namespace qwen::crosscheck {

struct CrossCheckOptions {
  // One text per sequence, none empty. They are run as one ragged batch.
  std::vector<std::vector<std::int32_t>> texts;
  // Tokens that follow each text: what the path finds likeliest.
  std::int64_t n_decode = 16;
  // Tokens of a sequence in one step of the prefill.
  std::int64_t chunk = 512;
  DType kv_dtype = DType::kF32;
  std::int64_t n_layers = -1;
  // Called before each step with the number of tokens done and of all.
  std::function<void(std::int64_t done, std::int64_t total)> progress = {};
  // Called for the first op of each tap's name that fails.
  KeepEvidence keep = {};
};

enum class Agreement { kAgree, kDiverge, kCannotTell };

struct CrossCheckResult {
  Agreement agreement = Agreement::kAgree;
  std::int64_t n_tokens = 0;  // run, of all sequences
  Attestation attestation;
  ShadowResult shadow;
};

// A model on either side of a comparison, loaded from the same file.
struct Models {
  const Model& path;
  const Model& oracle;
};

// Says kCannotTell if nothing was checked. Throws Error if a side cannot run at all.
CrossCheckResult cross_check(const Sides& sides, const Models& models,
                             const CrossCheckOptions& options);

}  // namespace qwen::crosscheck
