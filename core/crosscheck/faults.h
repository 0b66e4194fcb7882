// The self-test: every fault of the catalogue, planted in a path that is otherwise right, must be
// caught, at the right op, and named.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/crosscheck/cross_check.h"
#include "core/crosscheck/faulty_backend.h"
#include "core/model_file.h"

namespace qwen::crosscheck {

struct Fault {
  std::string_view id;  // of the catalogue: "M3e"
  std::vector<Plant> plants = {};
  // Weights whose name ends so are all zero at load.
  std::string_view zeroed = {};
};

// Of each kind of op, what the build can express.
std::span<const Fault> fault_catalogue();

// A file whose weights are wrong: what a faulty loader would make of it.
class FaultyFile : public ModelFile {
 public:
  // `file` must outlive it. Weights whose name ends with `zeroed` are handed out as zeros.
  FaultyFile(ModelFile& file, std::string_view zeroed) : file_(file), zeroed_(zeroed) {}

  std::optional<std::uint32_t> find_u32(std::string_view key) const override {
    return file_.find_u32(key);
  }
  std::optional<float> find_f32(std::string_view key) const override { return file_.find_f32(key); }
  std::optional<std::string> find_string(std::string_view key) const override {
    return file_.find_string(key);
  }
  bool has_tensor(std::string_view name) const override { return file_.has_tensor(name); }
  std::span<const std::int64_t> tensor_shape(std::string_view name) const override {
    return file_.tensor_shape(name);
  }
  Tensor take(std::string_view name, std::initializer_list<std::int64_t> shape) override;
  void check_all_taken() const override { file_.check_all_taken(); }
  // Weights that were zeroed.
  int n_zeroed() const { return n_zeroed_; }

 private:
  ModelFile& file_;
  std::string_view zeroed_;
  int n_zeroed_ = 0;
  Scratch zeros_;
};

struct FaultResult {
  std::string id;
  std::string planted = {};  // the causes of its plants, or what was zeroed
  // False: on this model and text the fault changes nothing (eps is 1e-5 anyway, ...).
  bool applies = false;
  bool caught = false;  // the run diverged
  // Each op that was changed diverged in the first of its layers, and no other op did; every zeroed
  // weight was found.
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
  std::set<std::pair<std::string_view, int>> planted;  // tap and layer
  int n_zeroed = 0;
};
// One fault. Without plants and zeros: the clean run.
FaultRun run_with_fault(const Sides& sides, const OpenModel& open, const CrossCheckOptions& options,
                        const Fault& fault);

}  // namespace qwen::crosscheck
