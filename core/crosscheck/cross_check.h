// Cross-check: runs a path under test and an oracle over the same tokens and says whether they
// agree, and if not, where and why. (attest.h, shadow.h, cause.h)
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/crosscheck/attest.h"
#include "core/crosscheck/free.h"
#include "core/crosscheck/fused.h"
#include "core/crosscheck/shadow.h"
#include "core/crosscheck/steps.h"
#include "core/model.h"

namespace qwen::crosscheck {

enum class Mode {
  kShadow,  // op by op, each from the inputs that the path has
  kForced,  // op by op, each from the inputs that the oracle has (forced.h)
  kFree,    // each side alone (free.h)
  kBoth,    // shadow, and unless it diverges, free on the same tokens
};

struct CrossCheckOptions {
  // One text per sequence, none empty. They are run as one ragged batch.
  std::vector<std::vector<std::int32_t>> texts;
  // Tokens that follow each text, as the path chooses them: the likeliest for the first text, the
  // others by chance, so that all of the sampler is checked. In Mode::kFree always the likeliest.
  std::int64_t n_decode = 16;
  // Tokens of a sequence in one step of the prefill.
  std::int64_t chunk = 512;
  // Steps that are also run as the path runs them unobserved: fused, and as a program.
  std::int64_t n_fused_steps = 4;
  DType kv_dtype = DType::kF32;
  std::int64_t n_layers = -1;
  Mode mode = Mode::kShadow;
  bool detail = false;  // every check is kept in ShadowResult
  // Called before each step with its tokens, and the number of tokens done and of all.
  Progress progress = {};
  // Called for the first divergence of an op, a fused run or a generation, before its cause is
  // looked for; not for what attestation or the free mode find.
  Found found = {};
  // Called for the first op of each tap's name that fails.
  KeepEvidence keep = {};
};

enum class Agreement { kAgree, kDiverge, kCannotTell };

struct CrossCheckResult {
  Agreement agreement = Agreement::kAgree;
  std::int64_t n_tokens = 0;                          // run, of all sequences
  std::vector<std::vector<std::int32_t>> texts = {};  // with what the path chose to follow
  Attestation attestation;
  ShadowResult shadow;
  FusedResult fused;
  std::optional<FreeResult> free;  // if it was run
};

// A model on either side of a comparison, loaded from the same file.
struct Models {
  const Model& path;
  const Model& oracle;
  const ModelFile& file;  // that the oracle's was loaded from
};

// A session in which one side runs the texts.
SessionOptions session_options(const CrossCheckOptions& options);

// Says kCannotTell if nothing was checked. Throws Error if a side cannot run at all.
CrossCheckResult cross_check(const Sides& sides, const Models& models,
                             const CrossCheckOptions& options);

}  // namespace qwen::crosscheck
