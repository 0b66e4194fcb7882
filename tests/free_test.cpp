// Free mode of the cross-check, and the twins that it is judged by.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"
#include "core/crosscheck/faults.h"
#include "core/crosscheck/logits.h"
#include "core/crosscheck/twins.h"
#include "loader/weights.h"
#include "tests/model_runs.h"

namespace qwen::crosscheck {
namespace {

using qwen::testing::PlacedModel;
using qwen::testing::random_text;
using qwen::testing::tiny_models;
using qwen::testing::TinyModel;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(Logits, EqualOnesHaveNoDistance) {
  const std::array<float, 4> logits = {1, -3, 2.5, 0};
  const LogitComparison c = compare_logits(logits, logits);
  EXPECT_EQ(c.kl, 0);
  EXPECT_EQ(c.drift, 0);
  EXPECT_EQ(c.margin, 0);
  EXPECT_EQ(c.oracle_top, 2);
  EXPECT_FALSE(c.flipped());
}

TEST(Logits, DivergenceOfHandMadeOnes) {
  // 3/4 and 1/4 against 1/2 and 1/2; a common shift is of no matter.
  const std::array<float, 2> oracle = {100 + std::log(3.0f), 100};
  const std::array<float, 2> path = {7, 7};
  EXPECT_NEAR(compare_logits(oracle, path).kl, 0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-6);
  EXPECT_NEAR(compare_logits(path, oracle).kl, -0.5 * std::log(1.5) - 0.5 * std::log(0.5), 1e-6);
}

TEST(Logits, ANumberThatIsNoneNeverAgrees) {
  const std::array<float, 3> good = {1, 2, 3};
  for (const std::array<float, 3> bad : {std::array<float, 3>{kNan, 2, 3}, {1, 2, kNan}}) {
    EXPECT_TRUE(std::isnan(compare_logits(good, bad).kl));
    EXPECT_TRUE(std::isnan(compare_logits(good, bad).drift));
  }
}

TEST(Logits, OnlyANearTieExplainsAFlip) {
  const std::array<float, 3> oracle = {5.0f, 4.75f, 1.0f};
  const std::array<float, 3> near_tie = {4.8f, 4.9f, 1.0f};
  const std::array<float, 3> wrong = {4.8f, 4.7f, 5.5f};
  const LogitComparison c = compare_logits(oracle, near_tie);
  EXPECT_TRUE(c.flipped());
  EXPECT_DOUBLE_EQ(c.margin, 0.25);
  EXPECT_TRUE(explains_flip(c.margin, 0.125));
  EXPECT_FALSE(explains_flip(c.margin, 0.124));
  // The oracle's first two are near each other, but the path chose neither.
  EXPECT_DOUBLE_EQ(compare_logits(oracle, wrong).margin, 4);
  EXPECT_FALSE(explains_flip(compare_logits(oracle, wrong).margin, 0.125));
}

OpenModel opener(const fixtures::TinyModelSpec& spec) {
  return [bytes = fixtures::tiny_model(spec).bytes()]() -> std::unique_ptr<ModelFile> {
    return std::make_unique<GgufModelFile>(Gguf::parse(from_memory(bytes, "tiny")));
  };
}

CrossCheckOptions options(Mode mode, DType kv = DType::kF32) {
  return {.texts = {random_text(11, 1), random_text(4, 2), random_text(7, 3)},
          .n_decode = 3,
          .chunk = 6,
          .kv_dtype = kv,
          .mode = mode};
}

// The CPU's path against the reference.
class FreeTest : public ::testing::TestWithParam<TinyModel> {
 protected:
  CrossCheckResult check(Backend& path, const CrossCheckOptions& options, const Fault& fault = {}) {
    return run_with_fault({path, reference_, reference_}, opener(GetParam().spec), options, fault)
        .result;
  }
  FreeResult free(Backend& path, const Fault& fault = {}) {
    const CrossCheckResult result = check(path, options(Mode::kFree), fault);
    EXPECT_EQ(result.agreement, result.free->agrees ? Agreement::kAgree : Agreement::kDiverge);
    return *result.free;
  }

  CpuBackend cpu_{1, ""};
  ReferenceBackend reference_;
};

TEST_P(FreeTest, CleanRunsAgree) {
  for (const DType kv : {DType::kF32, DType::kF16}) {
    const CrossCheckResult result = check(cpu_, options(Mode::kBoth, kv));
    EXPECT_EQ(result.agreement, Agreement::kAgree);
    ASSERT_TRUE(result.free.has_value());
    const FreeResult& free = *result.free;
    EXPECT_EQ(free.n_tokens, 11 + 4 + 7 + 3 * 3);
    EXPECT_EQ(free.n_tokens, result.n_tokens);
    EXPECT_EQ(free.n_flips, free.n_flips_explained);
    EXPECT_GE(free.kl_max, free.kl_mean);
    // Two layers of each token; the logits of 4 + 3 + 4 last ones of a step, and of flips.
    EXPECT_EQ(free.drift.size(),
              static_cast<std::size_t>(2 * free.n_tokens + 2 + 1 + 2 + 3 * 3 + free.n_flips));
    for (const Drift& d : free.drift) {
      EXPECT_GT(d.twins, 0);
      EXPECT_LE(d.ratio(), 3) << "seq " << d.seq << " token " << d.token << " layer " << d.layer;
    }
    // The twins do not hide what is there.
    EXPECT_GT(free.worst_drift.ratio(), 0.02);
                free.worst_drift.ratio(), (long)free.n_flips);
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, FreeTest, ::testing::ValuesIn(tiny_models()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace qwen::crosscheck
