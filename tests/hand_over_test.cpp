// What lies in a path's buffers between ops.
#include "core/crosscheck/hand_over.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "tests/checked_run.h"

namespace qwen::crosscheck {
namespace {

// A path's memory of 16 numbers, and what is known of it.
class Memory {
 public:
  Tensor at(std::int64_t first, std::int64_t n) {
    return {reinterpret_cast<std::byte*>(numbers_ + first), DType::kI32, {n}};
  }
  void wrote(std::int64_t first, std::vector<std::int32_t> numbers) {
    const auto n = static_cast<std::int64_t>(numbers.size());
    hand_over_.wrote(at(first, n),
                     {reinterpret_cast<std::byte*>(numbers.data()), DType::kI32, {n}});
  }
  // Empty if not all of it is known.
  std::vector<std::int32_t> left(std::int64_t first, std::int64_t n) {
    const Tensor t = hand_over_.left(at(first, n));
    return t.empty() ? std::vector<std::int32_t>() : std::vector(t.i32(), t.i32() + t.size());
  }
  void forget() { hand_over_.forget(); }

 private:
  std::int32_t numbers_[16] = {};
  HandOver hand_over_;
};

using Numbers = std::vector<std::int32_t>;

TEST(HandOver, KnowsWhatWasWrittenLast) {
  Memory memory;
  EXPECT_EQ(memory.left(0, 4), Numbers());
  memory.wrote(0, {1, 2, 3, 4});
  EXPECT_EQ(memory.left(0, 4), Numbers({1, 2, 3, 4}));
  EXPECT_EQ(memory.left(1, 2), Numbers({2, 3}));
  EXPECT_EQ(memory.left(2, 3), Numbers());  // one too far
  memory.wrote(0, {5, 6, 7, 8});
  EXPECT_EQ(memory.left(0, 4), Numbers({5, 6, 7, 8}));
  memory.forget();
  EXPECT_EQ(memory.left(0, 4), Numbers());
}

TEST(HandOver, KeepsTheRestOfWhatIsOverwritten) {
  Memory memory;
  memory.wrote(0, {1, 2, 3, 4, 5, 6, 7, 8});
  memory.wrote(2, {20, 30});
  EXPECT_EQ(memory.left(0, 2), Numbers({1, 2}));
  EXPECT_EQ(memory.left(2, 2), Numbers({20, 30}));
  EXPECT_EQ(memory.left(4, 4), Numbers({5, 6, 7, 8}));
  memory.wrote(1, {21, 22, 23, 24});  // over the ends of three
  EXPECT_EQ(memory.left(0, 1), Numbers({1}));
  EXPECT_EQ(memory.left(1, 4), Numbers({21, 22, 23, 24}));
  EXPECT_EQ(memory.left(5, 3), Numbers({6, 7, 8}));
}

// An op that is right by itself, and also changes the residual stream, which is not its own.
class StrayBackend : public CpuBackend {
 public:
  explicit StrayBackend(bool strays) : CpuBackend(1, ""), strays_(strays) {}

 protected:
  using CpuBackend::run;
  void run(const RmsNorm& op) override {
    CpuBackend::run(op);
    if (running().name == "attn_norm") residual_ = op.x.f32();
  }
  void run(const Gemm& op) override {
    CpuBackend::run(op);
    if (strays_ && running().name == "q_proj" && running().layer == 1) residual_[3] *= 1.001f;
  }

 private:
  bool strays_;
  float* residual_ = nullptr;
};

CrossCheckResult checked(bool strays) {
  StrayBackend path(strays);
  return testing::checked_run(testing::tiny_models().front(), path,
                              {.texts = {testing::random_text(5, 1), testing::random_text(3, 2)}});
}

TEST(HandOver, AWriteToAnothersBufferIsFound) {
  EXPECT_EQ(checked(false).agreement, Agreement::kAgree);
  const CrossCheckResult run = checked(true);
  EXPECT_EQ(run.agreement, Agreement::kDiverge);
  ASSERT_FALSE(run.shadow.divergences.empty());
  const Divergence& first = run.shadow.divergences.front();
  EXPECT_EQ(first.tap.name, "resid1");  // the first that reads it
  EXPECT_EQ(first.tap.layer, 1);
  EXPECT_EQ(first.cause.name, "another op wrote to what this one reads");
}

}  // namespace
}  // namespace qwen::crosscheck
