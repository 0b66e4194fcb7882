// The cross-check of what a path runs as one: a backend that fuses like a GPU's, right and wrong.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "backends/cpu/cpu_backend.h"
#include "tests/checked_run.h"

namespace qwen::crosscheck {
namespace {

using qwen::testing::random_text;

enum class Wrong { kNothing, kNoBias, kSlotOfBefore, kUpTooLarge, kOldPositions };

// Runs the ops of a run one by one, and then spoils what a fused kernel would not store.
class FusingBackend : public CpuBackend {
 public:
  explicit FusingBackend(Wrong wrong) : CpuBackend(1, ""), wrong_(wrong) {}

  std::vector<FusedRun> fused_runs(const Plan& plan) const override {
    std::vector<FusedRun> runs;
    for (std::size_t n = 0; n < plan.size(); ++n) {
      if (plan[n].tap.name == "attn_norm") runs.push_back({n, 10, {out(plan, n)}});
      if (plan[n].tap.name == "ffn_norm") {
        runs.push_back({n, 6, {out(plan, n), out(plan, n + 1), out(plan, n + 2)}});
      }
    }
    return runs;
  }

  std::unique_ptr<Program> compile(Plan plan) override {
    if (wrong_ == Wrong::kOldPositions) {
      for (Node& node : plan) capture(node.op);
    }
    return CpuBackend::compile(std::move(plan));
  }

 protected:
  void execute_unobserved(const Plan& plan) override {
    for (const Node& node : plan) run_wrong(node);
    for (const FusedRun& run : fused_runs(plan)) {
      for (const Tensor& t : run.elided) {
        std::fill_n(t.f32(), t.size(), std::numeric_limits<float>::quiet_NaN());
      }
    }
  }

 private:
  static Tensor out(const Plan& plan, std::size_t n) {
    Op op = plan[n].op;
    return *operands(op).front().tensor;
  }

  void run_wrong(const Node& node) {
    if (wrong_ == Wrong::kNoBias && node.tap.name == "q_bias") return;
    if (wrong_ == Wrong::kUpTooLarge && node.tap.name == "up") {
      Op op = node.op;
      auto& up = std::get<Gemm>(op);
      (*this)(op);
      for (std::int64_t i = 0; i < up.out.size(); ++i) up.out.f32()[i] *= 1.001f;
      return;
    }
    (*this)(node.op, node.tap);
    if (wrong_ == Wrong::kSlotOfBefore && node.tap.name == "kv_write") {
      KvWrite write = std::get<KvWrite>(node.op);
      std::vector<std::int32_t> before(write.pos.i32(), write.pos.i32() + write.pos.size());
      for (std::int32_t& pos : before) pos = std::max(pos - 1, 0);
      write.pos.data = reinterpret_cast<std::byte*>(before.data());
      (*this)(write);
    }
  }

  // As a graph would that copied the positions when it was made.
  void capture(Op& op) {
    for (const Operand& operand : operands(op)) {
      if (operand.name != "pos") continue;
      captured_.emplace_back(operand.tensor->i32(), operand.tensor->i32() + operand.tensor->size());
      operand.tensor->data = reinterpret_cast<std::byte*>(captured_.back().data());
    }
  }

  Wrong wrong_;
  std::vector<std::vector<std::int32_t>> captured_;
};

CrossCheckResult checked(Wrong wrong) {
  FusingBackend path(wrong);
  return testing::checked_run(
      testing::tiny_models().front(), path,
      {.texts = {random_text(5, 1), random_text(3, 2)}, .n_decode = 4, .kv_dtype = DType::kF16});
}

void expect_found(Wrong wrong, std::string_view tap, std::string_view cause) {
  const CrossCheckResult run = checked(wrong);
  EXPECT_EQ(run.agreement, Agreement::kDiverge);
  ASSERT_FALSE(run.shadow.divergences.empty());
  const Divergence& first = run.shadow.divergences.front();
  EXPECT_EQ(first.tap.name, tap);
  EXPECT_EQ(first.cause.name, cause);
}

TEST(FusedCheck, RightRunsAgree) {
  const CrossCheckResult run = checked(Wrong::kNothing);
  for (const Divergence& d : run.shadow.divergences) {
    ADD_FAILURE() << d.cause.name << ", " << d.tap.name << " of layer " << d.tap.layer << ": "
                  << d.element.ratio() << " of the tolerance";
  }
  EXPECT_EQ(run.agreement, Agreement::kAgree);
  EXPECT_GT(run.fused.n_runs, 4);
  EXPECT_EQ(run.fused.n_programs, 3);
  EXPECT_EQ(run.fused.n_queued, 2 * 3);
  EXPECT_EQ(run.fused.n_wide, 0);
  EXPECT_EQ(run.fused.n_coarse, 0);
}

TEST(FusedCheck, AFusedRunThatLeavesOutABiasIsFound) {
  expect_found(Wrong::kNoBias, "rope_q", "the fused attn_norm..kv_write differs from its ops");
}

TEST(FusedCheck, AThousandthInAFusedProductIsFound) {
  expect_found(Wrong::kUpTooLarge, "swiglu", "the fused ffn_norm..resid2 differs from its ops");
}

TEST(FusedCheck, AWriteToAnotherSlotIsFound) {
  expect_found(Wrong::kSlotOfBefore, "kv_write",
               "the fused attn_norm..kv_write writes where it must not");
}

TEST(FusedCheck, AProgramOfCapturedPositionsIsFound) {
  const CrossCheckResult run = checked(Wrong::kOldPositions);
  EXPECT_EQ(run.agreement, Agreement::kDiverge);
  ASSERT_FALSE(run.shadow.divergences.empty());
  EXPECT_EQ(run.shadow.divergences.front().cause.name,
            "the program made of the step differs from its launches one by one");
}

// The CPU's own runs, with 8-bit activations: nothing but equal bits tells whether they are right.
class WrongRuns : public CpuBackend {
 public:
  explicit WrongRuns(bool is_wrong) : CpuBackend(1, "", Activations::kInt8), is_wrong_(is_wrong) {}

 protected:
  void execute_unobserved(const Plan& plan) override {
    CpuBackend::execute_unobserved(plan);
    for (const Node& node : plan) {
      if (is_wrong_ && node.tap.name == "up") std::get<Gemm>(node.op).out.f32()[5] *= 1.001f;
    }
  }

 private:
  bool is_wrong_;
};

TEST(FusedCheck, RunsOfTheSameBitsAreComparedByThem) {
  for (const bool is_wrong : {false, true}) {
    WrongRuns path(is_wrong);
    const CrossCheckResult run = testing::checked_run(
        testing::tiny_models()[2], path, {.texts = {random_text(5, 1)}, .n_decode = 4});
    EXPECT_GT(run.fused.n_runs, 0);
    EXPECT_EQ(run.fused.n_coarse, 0);
    EXPECT_EQ(run.agreement, is_wrong ? Agreement::kDiverge : Agreement::kAgree);
    if (!is_wrong) continue;
    ASSERT_EQ(run.shadow.divergences.size(), 2u);  // of both layers
    EXPECT_EQ(run.shadow.divergences.front().tap.name, "up");
    EXPECT_EQ(run.shadow.divergences.front().cause.name, "the fused gate..up differs from its ops");
  }
}

// Only steps that are queued ahead take their tokens and positions from Advance. The third is given
// others for sequence 1.
class WrongAdvance : public CpuBackend {
 public:
  explicit WrongAdvance(Tensor Advance::*wrong) : CpuBackend(1, ""), wrong_(wrong) {}

 protected:
  void run(const Advance& op) override {
    CpuBackend::run(op);
    if (++n_runs_ == 3) --(op.*wrong_).i32()[1];
  }

 private:
  Tensor Advance::*wrong_;
  int n_runs_ = 0;
};

Divergence found_in_generation(Tensor Advance::*wrong) {
  WrongAdvance path(wrong);
  const CrossCheckResult run =
      testing::checked_run(testing::tiny_models().front(), path,
                           {.texts = {random_text(5, 1), random_text(3, 2)}, .n_decode = 6});
  EXPECT_GT(run.fused.n_queued, 0);
  EXPECT_EQ(run.agreement, Agreement::kDiverge);
  EXPECT_EQ(run.shadow.divergences.size(), 1u);
  return run.shadow.divergences.at(0);
}

TEST(FusedCheck, AStepQueuedAheadWithAnotherTokenIsFound) {
  const Divergence found = found_in_generation(&Advance::ids);
  EXPECT_EQ(found.seq, 1);
  EXPECT_GE(found.token, 3 + 3 - 1);
  EXPECT_TRUE(found.cause.name.starts_with("generation, which queues steps ahead"));
}

TEST(FusedCheck, AStepQueuedAheadAtAnotherPositionIsFound) {
  const Divergence found = found_in_generation(&Advance::pos);
  EXPECT_TRUE(found.cause.name.starts_with("generation, which queues steps ahead"));
  EXPECT_NE(found.cause.evidence.find("layer 0 attn_out"), std::string::npos)
      << "its own slot holds poison: " << found.cause.evidence;
}

}  // namespace
}  // namespace qwen::crosscheck
