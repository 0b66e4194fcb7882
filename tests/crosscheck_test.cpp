// The cross-check on tiny models: the clean run agrees, and every fault of the catalogue is caught
// where it is and named.
#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>

#include "core/crosscheck/faults.h"
#include "loader/weights.h"
#include "tests/checked_path.h"
#include "tests/model_runs.h"
#include "tests/usable_device.h"

namespace qwen::crosscheck {
namespace {

using qwen::testing::CheckedPath;
using qwen::testing::random_text;
using qwen::testing::why_skipped;

struct Shape {
  std::string name;
  fixtures::TinyModelSpec spec;
};
void PrintTo(const Shape& shape, std::ostream* out) { *out << shape.name; }

OpenModel opener(const fixtures::TinyModelSpec& spec) {
  return [bytes = fixtures::tiny_model(spec).bytes()]() -> std::unique_ptr<ModelFile> {
    return std::make_unique<GgufModelFile>(Gguf::parse(from_memory(bytes, "tiny")));
  };
}

// Ragged, several steps of prefill, and decode.
CrossCheckOptions options(std::uint64_t seed, DType kv = DType::kF32) {
  return {.texts = {random_text(11, seed), random_text(4, seed + 1), random_text(7, seed + 2)},
          .n_decode = 4,
          .chunk = 6,
          .kv_dtype = kv};
}

// A model, and the device whose path is checked: the CPU's by the reference, a GPU's by the CPU's.
class CrossCheckTest : public ::testing::TestWithParam<std::tuple<std::string, Shape>> {
 protected:
  void SetUp() override {
    const std::string& kind = std::get<0>(GetParam());
    const std::string why = why_skipped(kind);
    if (!why.empty()) GTEST_SKIP() << why;
    checked_.emplace(kind);
  }
  Sides sides() { return checked_->sides(); }
  static const fixtures::TinyModelSpec& spec() { return std::get<1>(GetParam()).spec; }

 private:
  std::optional<CheckedPath> checked_;
};

TEST_P(CrossCheckTest, CleanRunsAgree) {
  for (const DType kv : {DType::kF32, DType::kF16}) {
    const auto path_file = opener(spec())();
    const auto oracle_file = opener(spec())();
    const auto path = load_model(*path_file, sides().path);
    const auto oracle = load_model(*oracle_file, sides().oracle);
    const CrossCheckResult run =
        cross_check(sides(), {*path, *oracle, *oracle_file}, options(1, kv));
    EXPECT_EQ(run.agreement, Agreement::kAgree);
    EXPECT_TRUE(run.attestation.findings.empty());
    for (const Divergence& d : run.shadow.divergences) {
      ADD_FAILURE() << d.tap.name << " of layer " << d.tap.layer << ": " << d.element.got << " for "
                    << d.element.expected << ", " << d.element.ratio() << " of the tolerance";
    }
    EXPECT_EQ(run.n_tokens, 11 + 4 + 7 + 3 * 4);
    EXPECT_GT(run.shadow.n_elements, 100'000);
    // The bounds are used: a run that never comes near them would not see a fault.
    EXPECT_GT(run.shadow.worst.element.ratio(), 0.1);
    EXPECT_GT(run.attestation.n_constants, 20);
    // The steps that a device fuses are checked as it runs them, too.
    EXPECT_GT(run.fused.n_runs, 0);
    EXPECT_EQ(run.fused.n_coarse, 0);
  }
}

TEST_P(CrossCheckTest, EveryFaultIsCaughtPlacedAndNamed) {
  for (const std::uint64_t seed : {5, 50}) {
    const SelfTest test = self_test(sides(), opener(spec()), options(seed));
    EXPECT_EQ(test.false_alarms, 0);
    EXPECT_GE(test.faults.size(), 45u);
    for (const FaultResult& fault : test.faults) {
      EXPECT_TRUE(fault.applies) << fault.id << " " << fault.planted;
      EXPECT_TRUE(fault.caught) << fault.id << " " << fault.planted;
      EXPECT_TRUE(fault.placed) << fault.id << " " << fault.planted << ": first at "
                                << fault.first.tap.name << " of layer " << fault.first.tap.layer;
      EXPECT_TRUE(fault.named) << fault.id << " " << fault.planted << ": named "
                               << fault.first.cause.name << ", " << fault.first.cause.evidence;
    }
  }
}

// One short text, and scores that no clipping reaches: some faults have no occasion. They are not
// counted, and all others are found.
TEST(SelfTestTest, FaultsThatChangeNothingAreNotCounted) {
  const auto calm = testing::tiny_models().back();
  ASSERT_EQ(calm.name, "Calm");
  CheckedPath checked("cpu");
  const SelfTest test =
      self_test(checked.sides(), opener(calm.spec), {.texts = {random_text(11, 1)}, .n_decode = 4});
  EXPECT_EQ(test.false_alarms, 0);
  std::set<std::string> idle;
  for (const FaultResult& fault : test.faults) {
    if (!fault.applies) {
      idle.insert(fault.id);
      continue;
    }
    EXPECT_TRUE(fault.caught && fault.placed && fault.named) << fault.id << " " << fault.planted;
  }
  EXPECT_TRUE(idle.contains("M2a") && idle.contains("M51") && idle.contains("M32a"));
  EXPECT_LT(idle.size(), 12u);
}

// Both sides take numbers from the file by the same code: only the file itself can tell.
TEST_P(CrossCheckTest, MisreadMetadataAreFound) {
  for (const char* key : {"rope.freq_base", "layer_norm_rms_epsilon"}) {
    const LoadFault fault{LoadFault::Kind::kNumber, key, 1e-3f, ""};
    const auto path_file = opener(spec())();
    const auto oracle_file = opener(spec())();
    FaultyFile path_wrong(*path_file, fault);
    FaultyFile oracle_wrong(*oracle_file, fault);
    const auto path = load_model(path_wrong, sides().path);
    const auto oracle = load_model(oracle_wrong, sides().oracle);
    const CrossCheckResult run = cross_check(sides(), {*path, *oracle, *oracle_file}, options(1));
    EXPECT_EQ(run.agreement, Agreement::kDiverge);
    ASSERT_EQ(run.attestation.findings.size(), 1u) << key;
    EXPECT_EQ(run.attestation.findings[0].cause, "the metadata are misread");
  }
}

const Shape kF32{"F32_group7",
                 {.dtype = DType::kF32,
                  .n_heads = 14,
                  .n_kv_heads = 2,
                  .head_dim = 64,
                  .dim = 128,
                  .ffn_dim = 208}};
const Shape kQ8{"Q8_0_head128",
                {.dtype = DType::kQ8_0,
                 .n_heads = 6,
                 .n_kv_heads = 2,
                 .head_dim = 128,
                 .dim = 256,
                 .ffn_dim = 512,
                 .tied = false}};
// Formats with a minimum, too, and an odd number of blocks.
const Shape kMixed{"Q4_K_Q5_1",
                   {.dtype = DType::kQ4_K,
                    .v_dtype = DType::kQ5_1,
                    .n_heads = 4,
                    .n_kv_heads = 2,
                    .head_dim = 64,
                    .dim = 512,
                    .ffn_dim = 480}};

using ::testing::Combine;
using ::testing::Values;

std::string test_name(const ::testing::TestParamInfo<std::tuple<std::string, Shape>>& test) {
  return std::get<0>(test.param) + "_" + std::get<1>(test.param).name;
}

INSTANTIATE_TEST_SUITE_P(Tiny, CrossCheckTest, Combine(Values("cpu", "cuda"), Values(kF32, kQ8)),
                         test_name);
INSTANTIATE_TEST_SUITE_P(Int8, CrossCheckTest, Combine(Values("cpu_int8"), Values(kQ8, kMixed)),
                         test_name);

}  // namespace
}  // namespace qwen::crosscheck
