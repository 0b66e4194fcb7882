// Free mode of the cross-check, and forced mode.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"
#include "core/crosscheck/faults.h"
#include "core/crosscheck/logits.h"
#include "loader/weights.h"
#include "tests/model_runs.h"

namespace qwen::crosscheck {
namespace {

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
class FreeOn {
 protected:
  explicit FreeOn(const TinyModel& tiny) : open_(opener(tiny.spec)) {}
  CrossCheckResult check(Backend& path, const CrossCheckOptions& options, const Fault& fault = {}) {
    return run_with_fault({path, reference_, reference_, host_}, open_, options, fault).result;
  }
  FreeResult free(Backend& path, const Fault& fault = {}) {
    const CrossCheckResult result = check(path, options(Mode::kFree), fault);
    EXPECT_EQ(result.agreement, result.free->agrees ? Agreement::kAgree : Agreement::kDiverge);
    return *result.free;
  }

  OpenModel open_;
  CpuBackend cpu_{1, ""}, host_{1, ""};
  ReferenceBackend reference_;
};

struct FreeTest : FreeOn, ::testing::TestWithParam<TinyModel> {
  FreeTest() : FreeOn(GetParam()) {}
};
struct FreeOnF32 : FreeOn, ::testing::Test {
  FreeOnF32() : FreeOn(tiny_models().front()) {}
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
    for (const Drift& d : free.drift) EXPECT_GT(d.twins, 0);
    // The twins do not hide what is there.
    EXPECT_GT(free.worst_drift.ratio(), 0.02);
  }
}

// With 8-bit activations, rows that are alike are rounded alike: in a text of one token their
// errors do not average out.
TEST(FreeOnInt8, ARepeatedTokenAgrees) {
  struct Path : FreeOn {
    explicit Path(const TinyModel& tiny) : FreeOn(tiny) {}
    using FreeOn::check;
  };
  for (const TinyModel& tiny : tiny_models()) {
    if (tiny.spec.dtype == DType::kF32 || tiny.spec.dtype == DType::kF16) continue;
    for (const std::int32_t id : {0, 19}) {
      CpuBackend int8(1, "", Activations::kInt8);
      CrossCheckOptions repeated = options(Mode::kFree);
      repeated.texts = {std::vector<std::int32_t>(200, id)};
      repeated.chunk = 64;
      const CrossCheckResult result = Path(tiny).check(int8, repeated);
      EXPECT_EQ(result.agreement, Agreement::kAgree);
      EXPECT_LT(result.free->worst_drift.ratio(), 1.5);
    }
  }
}

// The whole catalogue, but for what leaves the logits as they are: a turn of queries and keys
// alike, another center of the keys, and the choice of tokens, which free mode does not leave to
// the path.
TEST_F(FreeOnF32, EveryFaultDiverges) {
  const std::set<std::string_view> harmless = {"M3h", "C1", "C2"};
  int n_harmless = 0;
  for (const Fault& fault : fault_catalogue()) {
    if (!fault.plants.empty() && fault.plants.front().tap == "token") continue;
    const bool agrees = free(cpu_, fault).agrees;
    EXPECT_EQ(agrees, harmless.contains(fault.id)) << fault.id;
    n_harmless += agrees ? 1 : 0;
  }
  EXPECT_EQ(n_harmless, harmless.size());
}

// One row of one weight is off by one percent.
class OffByAPercent : public CpuBackend {
 public:
  OffByAPercent() : CpuBackend(1, "") {}

 private:
  using CpuBackend::run;
  void run(const Gemm& op) override {
    CpuBackend::run(op);
    if (running().name != "o_proj" || running().layer != 1) return;
    for (std::int64_t row = 0; row < op.out.rows(); ++row) {
      op.out.f32()[row * op.out.cols() + 20] *= 1.01f;
    }
  }
};

TEST_P(FreeTest, OneElementOffByAPercentDiverges) {
  OffByAPercent path;
  const FreeResult result = free(path);
  EXPECT_FALSE(result.agrees);
  EXPECT_NE(result.worst_drift.layer, 0);
  for (const Drift& d : result.drift) {
    if (d.layer == 0) {
      EXPECT_LE(d.ratio(), kDriftFactor);
    }
  }
}

// One element of a norm's output is not a number.
class NotANumber : public CpuBackend {
 public:
  NotANumber(std::string_view tap, int layer) : CpuBackend(1, ""), tap_(tap), layer_(layer) {}

 private:
  using CpuBackend::run;
  void run(const RmsNorm& op) override {
    CpuBackend::run(op);
    if (running().name == tap_ && running().layer == layer_) *op.out.f32() = kNan;
  }

  std::string_view tap_;
  int layer_;
};

TEST_P(FreeTest, NotANumberDiverges) {
  NotANumber last("final_norm", -1);
  EXPECT_FALSE(free(last).agrees);
  NotANumber first("attn_norm", 0);
  const FreeResult result = free(first);
  EXPECT_FALSE(result.agrees);
  EXPECT_TRUE(std::isnan(result.kl_mean) && std::isnan(result.kl_max));
  EXPECT_TRUE(std::isnan(result.worst_drift.ratio()));
}

TEST_P(FreeTest, IsLeftOutAfterADivergence) {
  const Fault fault{.id = "", .plants = {{"swiglu", "SiLU is left out"}}};
  const CrossCheckResult result = check(cpu_, options(Mode::kBoth), fault);
  EXPECT_EQ(result.agreement, Agreement::kDiverge);
  EXPECT_FALSE(result.free.has_value());
}

std::set<std::pair<std::string_view, int>> places(const CrossCheckResult& result) {
  std::set<std::pair<std::string_view, int>> all;
  for (const Divergence& d : result.shadow.divergences) all.insert({d.tap.name, d.tap.layer});
  return all;
}

// Downstream of not-a-number in all rows an op can do nothing wrong, unless its inputs are forced.
TEST_P(FreeTest, ForcedModeFindsWhatNotANumberHides) {
  class AllNotANumber : public CpuBackend {
   public:
    AllNotANumber() : CpuBackend(1, "") {}

   private:
    using CpuBackend::run;
    void run(const Embed& op) override { std::fill_n(op.out.f32(), op.out.size(), kNan); }
  };
  AllNotANumber path;
  const Fault fault{.id = "",
                    .plants = {{"swiglu", "SiLU is left out", 1},
                               {"kv_write", "stored one position too early", 1}}};
  const CrossCheckResult shadow = check(path, options(Mode::kShadow), fault);
  EXPECT_TRUE(places(shadow).contains({"embed", -1}));
  EXPECT_FALSE(places(shadow).contains({"swiglu", 1}));
  const CrossCheckResult forced = check(path, options(Mode::kForced), fault);
  EXPECT_EQ(places(forced), (std::set<std::pair<std::string_view, int>>{
                                {"embed", -1}, {"kv_write", 1}, {"swiglu", 1}}));
  for (const Divergence& d : forced.shadow.divergences) {
    if (d.tap.name == "swiglu") {
      EXPECT_EQ(d.cause.name, "SiLU is left out");
    }
  }
}

// What the path does to its cache does not reach the oracle's values: the same tokens follow.
TEST_P(FreeTest, ForcedModeKeepsTheOraclesOwnValues) {
  const Fault fault{.id = "", .plants = {{"kv_write", "always stored at position 0"}}};
  CrossCheckOptions long_run = options(Mode::kForced);
  long_run.n_decode = 12;
  const CrossCheckResult result = check(cpu_, long_run, fault);
  EXPECT_EQ(places(result),
            (std::set<std::pair<std::string_view, int>>{{"kv_write", 0}, {"kv_write", 1}}));
  EXPECT_EQ(result.texts, check(cpu_, long_run).texts);
}

TEST_P(FreeTest, ForcedModeAgreesWithARightPath) {
  for (const DType kv : {DType::kF32, DType::kF16}) {
    const CrossCheckResult result = check(cpu_, options(Mode::kForced, kv));
    EXPECT_EQ(result.agreement, Agreement::kAgree);
    EXPECT_GT(result.shadow.worst.element.ratio(), 0.1);
  }
}

// One with all weights in F32, one with a head of 128, one without outliers.
std::vector<TinyModel> three_models() {
  std::vector<TinyModel> models = tiny_models();
  std::erase_if(models, [](const TinyModel& tiny) {
    return tiny.name != "F32" && tiny.name != "Q8_0" && tiny.name != "Calm";
  });
  return models;
}

INSTANTIATE_TEST_SUITE_P(Tiny, FreeTest, ::testing::ValuesIn(three_models()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace qwen::crosscheck
