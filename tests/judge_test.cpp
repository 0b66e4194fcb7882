// Judging outputs part by part, on one thread or several.
#include "core/crosscheck/judge.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <stdexcept>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"

namespace qwen::crosscheck {
namespace {

constexpr std::int64_t kTokens = 301;  // many parts, the last one shorter
constexpr std::int64_t kIn = 64;
constexpr std::int64_t kOut = 1031;

std::vector<float> random_values(std::int64_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& v : values) v = normal(random);
  return values;
}

Tensor tensor(std::vector<float>& values, std::initializer_list<std::int64_t> dims) {
  return {reinterpret_cast<std::byte*>(values.data()), DType::kF32,
          std::span(dims.begin(), dims.size())};
}

class JudgeTest : public ::testing::Test {
 protected:
  JudgeTest() {
    cpu_(op_);
    got_ = out_;
    reference_(op_);
  }
  Judgement judged(Backend* host) {
    return judge(op_, {op_.out}, {tensor(got_, {kTokens, kOut})}, {cpu_.contract(op_)},
                 {.by_row = true, .host = host})
        .front();
  }
  // The same, whoever judges, and if each element is looked at by its own bound.
  Judgement judged_twice() {
    Judgement alone = judged(nullptr);
    expect_true(alone);
    const Judgement shared = judged(&cpu_);
    EXPECT_EQ(alone.verdict, shared.verdict);
    EXPECT_EQ(alone.n_elements, shared.n_elements);
    EXPECT_EQ(alone.n_failed, shared.n_failed);
    EXPECT_EQ(alone.failed, shared.failed);
    EXPECT_EQ(alone.first.index, shared.first.index);
    EXPECT_EQ(alone.worst.index, shared.worst.index);
    EXPECT_EQ(alone.worst.tolerance, shared.worst.tolerance);
    EXPECT_EQ(alone.spread.median, shared.spread.median);
    EXPECT_EQ(alone.spread.beyond, shared.spread.beyond);
    EXPECT_EQ(alone.rows.size(), shared.rows.size());
    return alone;
  }
  // As far as an output of at most kMaxListed failed elements goes.
  void expect_true(const Judgement& j) {
    const Tensor whole = tensor(out_, {kTokens, kOut});
    const std::vector<double> bounds = tolerance(op_, cpu_.contract(op_), whole).out;
    std::vector<std::int64_t> failed;
    double worst = 0;
    for (std::size_t i = 0; i < bounds.size(); ++i) {
      const double ratio = std::abs(double{got_[i]} - out_[i]) / bounds[i];
      if (ratio > 1) failed.push_back(static_cast<std::int64_t>(i));
      worst = std::max(worst, ratio);
    }
    if (failed.size() > Judgement::kMaxListed) return;
    EXPECT_EQ(j.failed, failed);
    EXPECT_EQ(j.n_failed, static_cast<std::int64_t>(failed.size()));
    if (worst > 1) {
      EXPECT_DOUBLE_EQ(j.worst.ratio(), worst);
    }
  }

  CpuBackend cpu_{3, ""};
  ReferenceBackend reference_;
  std::vector<float> x_ = random_values(kTokens * kIn, 1);
  std::vector<float> weight_ = random_values(kOut * kIn, 2);
  std::vector<float> out_ = std::vector<float>(kTokens * kOut);
  std::vector<float> got_;
  Gemm op_{.out = tensor(out_, {kTokens, kOut}),
           .x = tensor(x_, {kTokens, kIn}),
           .weight = tensor(weight_, {kOut, kIn})};
};

TEST_F(JudgeTest, AllElementsOfAllPartsAreJudged) {
  const Judgement j = judged_twice();
  EXPECT_EQ(j.verdict, Verdict::kPass);
  EXPECT_EQ(j.n_elements, kTokens * kOut);
  EXPECT_GT(j.worst.ratio(), 0);
  EXPECT_LT(j.spread.median, 1e-3);
  ASSERT_EQ(j.rows.size(), static_cast<std::size_t>(kTokens));
  for (std::int64_t row = 0; row < kTokens; ++row) {
    const Row& r = j.rows[static_cast<std::size_t>(row)];
    EXPECT_EQ(r.worst.index / kOut, row);
    EXPECT_LE(r.worst.ratio(), 1);
  }
}

TEST_F(JudgeTest, FailuresKeepTheirPlaceInTheWhole) {
  const std::vector<std::int64_t> wrong = {5 * kOut + 3, 5 * kOut + 900, 300 * kOut + 1030};
  got_[static_cast<std::size_t>(wrong[0])] += 0.01f;
  got_[static_cast<std::size_t>(wrong[1])] += 0.02f;
  got_[static_cast<std::size_t>(wrong[2])] += 10.0f;
  const Judgement j = judged_twice();
  EXPECT_EQ(j.verdict, Verdict::kFail);
  EXPECT_EQ(j.failed, wrong);
  EXPECT_EQ(j.n_failed, 3);
  EXPECT_EQ(j.first.index, wrong[1]);  // the worst of the first row that fails
  EXPECT_EQ(j.worst.index, wrong[2]);
  EXPECT_GT(j.rows[300].worst.ratio(), 1);
}

// Bounds of very different sizes: what fails by a narrow one says nothing of a wide one.
TEST_F(JudgeTest, OneElementsBoundIsNotAnothers) {
  constexpr std::int64_t kNarrow = 40;  // columns; more than a part looks at at first
  for (std::int64_t i = 0; i < kNarrow * kIn; ++i) weight_[static_cast<std::size_t>(i)] *= 1e-3f;
  reference_(op_);
  const std::vector<double> bounds =
      tolerance(op_, cpu_.contract(op_), tensor(out_, {kTokens, kOut})).out;
  got_ = out_;
  for (std::int64_t i = 7 * kOut; i < 8 * kOut; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const double share = i % kOut < kNarrow ? 3 : 0.8;
    got_[at] += static_cast<float>(share * bounds[at]);
  }
  const Judgement j = judged_twice();
  EXPECT_GE(j.n_failed, kNarrow - 2);  // adding to an FP32 number rounds
  EXPECT_LE(j.n_failed, kNarrow);
  EXPECT_LT(j.worst.index % kOut, kNarrow);
  EXPECT_LT(j.worst.ratio(), 10);
  EXPECT_EQ(j.rows[7].worst.ratio(), j.worst.ratio());
}

TEST_F(JudgeTest, OfAWholeThatIsWrongTheListIsCut) {
  for (float& v : got_) v += 1;
  const Judgement j = judged_twice();
  EXPECT_EQ(j.n_failed, kTokens * kOut);
  EXPECT_EQ(j.failed.size(), Judgement::kMaxListed);
  EXPECT_EQ(j.first.index / kOut, 0);
}

// One token's outputs, which are cut within the row: each element is still judged by its own bound,
// and the row's worst is found across the parts.
class OneTokenTest : public ::testing::Test {
 protected:
  // Of `op`, each output `expected` and, where the map says so, off by a share of its bound.
  using Shares = std::map<std::int64_t, double>;
  Judgement judged(const Op& op, const std::vector<Tensor>& expected,
                   const std::vector<double>& bounds, const Shares& off) {
    std::vector<float> out(expected[0].f32(), expected[0].f32() + expected[0].size());
    for (const auto& [i, share] : off) {
      const auto at = static_cast<std::size_t>(i);
      out[at] += static_cast<float>(share * bounds[at]);
    }
    std::vector<Tensor> got = expected;
    got[0].data = reinterpret_cast<std::byte*>(out.data());
    const std::vector<Contract> contracts = {cpu_.contract(op)};
    const Judgement alone = judge(op, expected, got, contracts).front();
    const Judgement shared = judge(op, expected, got, contracts, {.host = &cpu_}).front();
    EXPECT_EQ(alone.failed, shared.failed);
    EXPECT_EQ(alone.first.index, shared.first.index);
    EXPECT_EQ(alone.worst.index, shared.worst.index);
    EXPECT_EQ(alone.spread.median, shared.spread.median);
    EXPECT_EQ(alone.n_elements, expected[0].size());
    return alone;
  }
  // The elements beyond their bounds are found, and no others; the worst of them comes first.
  void expect_found(const Op& op, const std::vector<Tensor>& expected) {
    const Tensor lse = expected.size() > 1 ? expected[1] : Tensor();
    const std::vector<double> bounds = tolerance(op, cpu_.contract(op), expected[0], lse).out;
    const std::int64_t last = expected[0].size() - 1;
    const Judgement right = judged(op, expected, bounds, {{0, 0.5}, {last / 2, 0.8}, {last, 0.4}});
    EXPECT_EQ(right.verdict, Verdict::kPass);
    EXPECT_NEAR(right.worst.ratio(), 0.8, 0.1);  // adding to an FP32 number rounds
    const Judgement wrong = judged(op, expected, bounds, {{0, 2}, {last / 2, 4}, {last, 3}});
    EXPECT_EQ(wrong.verdict, Verdict::kFail);
    EXPECT_EQ(wrong.failed, (std::vector<std::int64_t>{0, last / 2, last}));
    EXPECT_EQ(wrong.first.index, last / 2);
    EXPECT_EQ(wrong.worst.index, last / 2);
  }

  CpuBackend cpu_{3, ""};
  ReferenceBackend reference_;
};

TEST_F(OneTokenTest, AProductIsJudgedElementByElement) {
  std::vector<float> x = random_values(kIn, 1);
  std::vector<float> weight = random_values(kOut * kIn, 2);
  std::vector<float> out(kOut);
  const Gemm op{.out = tensor(out, {1, kOut}),
                .x = tensor(x, {1, kIn}),
                .weight = tensor(weight, {kOut, kIn})};
  reference_(op);
  expect_found(op, {op.out});
}

TEST_F(OneTokenTest, AttentionIsJudgedHeadByHead) {
  constexpr std::int64_t kHeads = 14, kKvHeads = 2, kHeadDim = 64, kPageTokens = 16, kPages = 3;
  std::vector<float> q = random_values(kHeads * kHeadDim, 1);
  // So that no head's bounds are another's.
  for (std::int64_t i = 0; i < kHeads * kHeadDim; ++i) {
    const std::int64_t head = i / kHeadDim;
    q[static_cast<std::size_t>(i)] *= 0.1f * static_cast<float>(1 + head);
  }
  std::vector<float> k = random_values(kPages * kKvHeads * kPageTokens * kHeadDim, 2);
  std::vector<float> v = random_values(kPages * kKvHeads * kPageTokens * kHeadDim, 3);
  std::vector<float> out(kHeads * kHeadDim);
  std::vector<float> lse(kHeads);
  std::int32_t pos = 40;
  std::int32_t seq = 1;
  std::vector<std::int32_t> pages = {-1, -1, -1, 2, 0, 1};
  const Attention op{.out = tensor(out, {1, kHeads, kHeadDim}),
                     .lse = tensor(lse, {1, kHeads}),
                     .q = tensor(q, {1, kHeads, kHeadDim}),
                     .k_cache = tensor(k, {kPages, kKvHeads, kPageTokens, kHeadDim}),
                     .v_cache = tensor(v, {kPages, kKvHeads, kPageTokens, kHeadDim}),
                     .pos = Tensor(&pos, DType::kI32, {1}),
                     .seq = Tensor(&seq, DType::kI32, {1}),
                     .pages = Tensor(pages.data(), DType::kI32, {2, kPages}),
                     .scale = 0.125f};
  reference_(op);
  expect_found(op, {op.out, op.lse});
}

// A worst element that says nothing new is not looked for; one that does is the same.
TEST_F(JudgeTest, AWorstThatIsKnownNeedNotBeFound) {
  const auto worst = [&](double known) {
    const JudgeOptions options{.known_worst = known};
    return judge(op_, {op_.out}, {tensor(got_, {kTokens, kOut})}, {cpu_.contract(op_)}, options)
        .front()
        .worst;
  };
  const Element found = worst(0);
  EXPECT_GT(found.ratio(), 0);
  EXPECT_EQ(worst(found.ratio() / 2).index, found.index);
  EXPECT_EQ(worst(found.ratio() / 2).tolerance, found.tolerance);
  EXPECT_EQ(worst(found.ratio()).ratio(), 0);
}

// 100 rows of 10 ones, of which `n_lost` have bounds that say nothing.
Verdict verdict_of_rows(float value, std::size_t n_lost, double bound) {
  std::vector<float> expected(1000, value);
  std::vector<double> bounds(1000, 1e-6 * value);
  std::fill_n(bounds.begin(), 10 * n_lost, bound);
  std::vector<float> got = expected;
  for (std::size_t i = 0; i < 10 * n_lost; ++i) got[i] = -100;
  return judge(tensor(expected, {100, 10}), tensor(got, {100, 10}), bounds).verdict;
}

TEST(BoundsThatSayNothing, AreNoPass) {
  EXPECT_EQ(verdict_of_rows(1, 0, 0), Verdict::kPass);
  EXPECT_EQ(verdict_of_rows(1, 1, 1e30), Verdict::kUnsound);  // a whole token, of a hundred
  EXPECT_EQ(verdict_of_rows(1, 1, 1e-6), Verdict::kFail);
  EXPECT_EQ(verdict_of_rows(0, 100, 1e6), Verdict::kUnsound);  // 0 expected, -100 got
}

TEST(ParallelForTest, AnExceptionReachesTheCaller) {
  CpuBackend cpu(3, "");
  const auto fails = [](std::int64_t begin, std::int64_t) {
    if (begin == 7) throw std::runtime_error("seven");
  };
  EXPECT_THROW(cpu.parallel_for(10, 1, fails), std::runtime_error);
  EXPECT_NO_THROW(cpu.parallel_for(5, 1, fails));
}

}  // namespace
}  // namespace qwen::crosscheck
