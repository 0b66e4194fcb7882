// The self-test: every fault of the catalogue, planted in a path that is otherwise right, must be
// caught, at the right op and token, and named.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/crosscheck/cross_check.h"
#include "core/crosscheck/faulty_backend.h"
#include "core/crosscheck/faulty_file.h"
#include "core/model_file.h"

namespace qwen::crosscheck {

struct Fault {
  std::string_view id;  // of the catalogue: "M3e"
  std::vector<Plant> plants = {};
  LoadFault load = {};
};

// Of each kind of op, what the build can express.
std::span<const Fault> fault_catalogue();

struct FaultResult {
  std::string id;
  std::string planted = {};  // the causes of its plants, and what is wrong at load
  // False: on this model and text the fault changes nothing (eps is 1e-5 anyway, ...).
  bool applies = false;
  bool caught = false;  // the run diverged
  // Each op that was changed diverged in the first of its layers, at a token where that may be
  // found first (Planted), and no other op did; every weight that was loaded wrongly was found.
  bool placed = false;
  bool named = false;     // every plant's cause was named
  Divergence first = {};  // if caught by the shadow
};

struct SelfTest {
  std::vector<FaultResult> faults;
  std::int64_t false_alarms = 0;  // divergences and unsound checks of the path without a fault
};

// `open` opens the model's file anew.
using OpenModel = std::function<std::unique_ptr<ModelFile>()>;
// Runs the catalogue on sides.path.
SelfTest self_test(const Sides& sides, const OpenModel& open, const CrossCheckOptions& options);

struct FaultRun {
  CrossCheckResult result;
  std::map<PlantedOutput, Planted> planted = {};
  int n_wrong = 0;  // weights and values at load
};
// One fault. Without any plants: the clean run.
FaultRun run_with_fault(const Sides& sides, const OpenModel& open, const CrossCheckOptions& options,
                        const Fault& fault);

}  // namespace qwen::crosscheck
