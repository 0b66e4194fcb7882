// The cross-check of a path on a tiny model by the CPU, in FP32.
#pragma once

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"
#include "core/crosscheck/cross_check.h"
#include "tests/model_runs.h"

namespace qwen::testing {

inline crosscheck::CrossCheckResult checked_run(const TinyModel& tiny, Backend& path,
                                                const crosscheck::CrossCheckOptions& options) {
  CpuBackend oracle(1, "");
  ReferenceBackend reference;
  const PlacedModel theirs(tiny, path);
  const PlacedModel ours(tiny, oracle);
  return cross_check({path, oracle, reference, oracle}, {*theirs.model, *ours.model, *ours.file},
                     options);
}

}  // namespace qwen::testing
