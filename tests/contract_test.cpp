// The bounds of core/contract.h against arithmetic that is emulated bit for bit: they hold, and
// they are narrow enough to see a small error.
#include "core/contract.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "backends/cpu/reference/reference.h"
#include "core/crosscheck/judge.h"
#include "core/crosscheck/rounded.h"
#include "core/half.h"
#include "tests/fixtures/random.h"

namespace qwen::testing {
namespace {

using crosscheck::Scratch;

// A step of a tensor core: what it adds at once, and how many bits below FP32's it keeps of each
// number once all are aligned to the largest.
struct Step {
  std::int64_t terms;
  int extra_bits;
};
constexpr Step kAmpere = {8, 1};
constexpr Step kHopper = {16, 2};

// v without what lies below 2^lowest.
double cut(double v, int lowest) { return std::ldexp(std::trunc(std::ldexp(v, -lowest)), lowest); }

double add_step(double sum, const double* products, std::int64_t n, const Step& step) {
  double largest = std::abs(sum);
  for (std::int64_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(products[i]));
  if (largest == 0) return 0;
  const int lowest = std::ilogb(largest) - 23 - step.extra_bits;
  double total = cut(sum, lowest);
  for (std::int64_t i = 0; i < n; ++i) total += cut(products[i], lowest);
  return total == 0 ? 0 : cut(total, std::ilogb(total) - 23);
}

// In which order the steps come.
enum class Order { kInOrder, kTwoSlices, kPositiveFirst };

double tensor_core_sum(const std::vector<double>& products, const Step& step, Order order) {
  struct Block {
    const double* first;
    std::int64_t n;
    double sum;
  };
  std::vector<Block> blocks;
  const auto n = static_cast<std::int64_t>(products.size());
  for (std::int64_t i = 0; i < n; i += step.terms) {
    Block b{products.data() + i, std::min(step.terms, n - i), 0};
    for (std::int64_t k = 0; k < b.n; ++k) b.sum += b.first[k];
    blocks.push_back(b);
  }
  if (order == Order::kPositiveFirst) {
    std::stable_sort(blocks.begin(), blocks.end(),
                     [](const Block& a, const Block& b) { return a.sum > b.sum; });
  }
  float slices[2] = {};
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    float& sum = slices[order == Order::kTwoSlices ? i % 2 : 0];
    sum = static_cast<float>(add_step(sum, blocks[i].first, blocks[i].n, step));
  }
  return slices[0] + slices[1];
}

constexpr float kInputScale = 0x1p-6f;
constexpr float kWeightScale = 0x1p8f;

// As a device's products of rounded operands are described.
Contract tensor_core_contract(std::int64_t n_cols, const Step& step) {
  return {.sum_depth = 11 * ((n_cols + step.terms - 1) / step.terms) + 8,
          .truncates = true,
          .sum_block = step.terms,
          .input_unit = 0x1p-11,
          .weight_unit = 0x1p-11,
          .input_step = 0x1p-25 / kInputScale,
          .input_scale = kInputScale,
          .weight_scale = kWeightScale};
}

enum class Values { kRandom, kOutliers, kPositive };

class TensorCoreTest : public ::testing::TestWithParam<std::tuple<std::int64_t, Values>> {
 protected:
  void SetUp() override {
    const auto [n_cols, values] = GetParam();
    gemm_.x = scratch_.take(DType::kF32, {kTokens, n_cols});
    gemm_.weight = scratch_.take(DType::kF32, {kRows, n_cols});
    gemm_.out = scratch_.take(DType::kF32, {kTokens, kRows});
    fill(gemm_.x, 1);
    fill(gemm_.weight, 0.02f);
    for (std::int64_t i = 0; i < gemm_.x.size(); ++i) {
      float& x = gemm_.x.f32()[i];
      if (values == Values::kPositive) x = std::abs(x);
      if (values == Values::kOutliers && i % 97 == 0) x *= 300;
      if (values == Values::kOutliers && i % 97 == 1) x *= 1e-6f;
    }
    for (std::int64_t i = 0; values == Values::kPositive && i < gemm_.weight.size(); ++i) {
      gemm_.weight.f32()[i] = std::abs(gemm_.weight.f32()[i]);
    }
  }

  void fill(const Tensor& t, float size) {
    for (std::int64_t i = 0; i < t.size(); ++i)
      t.f32()[i] = static_cast<float>(size * random_.normal());
  }

  // Element i as a tensor core has it.
  double emulated(std::int64_t i, const Step& step, Order order) const {
    const std::int64_t n_cols = gemm_.x.cols();
    const float* x = gemm_.x.f32() + i / kRows * n_cols;
    const float* w = gemm_.weight.f32() + i % kRows * n_cols;
    std::vector<double> products;
    for (std::int64_t c = 0; c < n_cols; ++c) {
      products.push_back(double{round_to_f16(x[c] * kInputScale)} *
                         round_to_f16(w[c] * kWeightScale));
    }
    return tensor_core_sum(products, step, order) / kInputScale / kWeightScale;
  }

  static constexpr std::int64_t kTokens = 3;
  static constexpr std::int64_t kRows = 40;
  fixtures::Random random_{7};
  Scratch scratch_;
  ReferenceBackend reference_;
  Gemm gemm_;
};

TEST_P(TensorCoreTest, BoundsHoldAndSeeAPercent) {
  for (const Step& step : {kAmpere, kHopper}) {
    const auto [op, contract] = crosscheck::rounded(
        gemm_, tensor_core_contract(gemm_.x.cols(), step), reference_, scratch_);
    const Gemm& exact = std::get<Gemm>(op);
    reference_(op);
    GemmTolerance bound(exact, {contract}, exact.out);
    double worst = 0;
    double squares = 0;
    double widest = 0;
    for (std::int64_t i = 0; i < exact.out.size(); ++i) {
      const double y = exact.out.f32()[i];
      EXPECT_LE(bound.at_least(i), bound.at(i) * (1 + 1e-6));
      for (const Order order : {Order::kInOrder, Order::kTwoSlices, Order::kPositiveFirst}) {
        worst = std::max(worst, std::abs(emulated(i, step, order) - y) / bound.at(i));
      }
      squares += y * y;
      widest = std::max(widest, bound.at(i));
    }
    EXPECT_LT(worst, 1);
    EXPECT_GT(worst, 0.005);
    EXPECT_LT(widest, 0.01 * std::sqrt(squares / static_cast<double>(exact.out.size())));
  }
}

// A limit that suffices lies between what is asked for and the bound.
TEST_P(TensorCoreTest, LimitsSuffice) {
  reference_(gemm_);
  GemmTolerance bound(gemm_, {tensor_core_contract(gemm_.x.cols(), kHopper)}, gemm_.out);
  for (std::int64_t i = 0; i < gemm_.out.size(); ++i) {
    const double whole = bound.at(i);
    for (const double share : {0.01, 0.5, 0.99}) {
      const double limit = bound.at(i, share * whole);
      EXPECT_GE(limit, share * whole);
      EXPECT_LE(limit, whole * (1 + 1e-12));
    }
    EXPECT_EQ(bound.at(i, 2 * whole), whole);
  }
}

// The whole judgement: a right output passes, one element off by a percent fails, and bounds that
// do not know what the rounding did are too wide to say anything.
TEST_P(TensorCoreTest, AnErrorOfAPercentIsSeen) {
  const Contract whole = tensor_core_contract(gemm_.x.cols(), kHopper);
  const crosscheck::Rounded repeated = crosscheck::rounded(gemm_, whole, reference_, scratch_);
  const Tensor& exact = std::get<Gemm>(repeated.op).out;
  reference_(repeated.op);
  const Tensor got = scratch_.take(DType::kF32, exact.dims());
  double squares = 0;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    got.f32()[i] = static_cast<float>(emulated(i, kHopper, Order::kTwoSlices));
    squares += double{exact.f32()[i]} * exact.f32()[i];
  }
  const auto judged = [&](const Contract& c) {
    return crosscheck::judge(repeated.op, {exact}, {got}, {c}).front();
  };
  EXPECT_EQ(judged(repeated.contract).verdict, crosscheck::Verdict::kPass);
  if (std::get<1>(GetParam()) == Values::kRandom && gemm_.x.cols() > 4000) {
    EXPECT_EQ(judged(whole).verdict, crosscheck::Verdict::kUnsound);
  }
  constexpr std::int64_t kPlanted = kRows + 3;
  got.f32()[kPlanted] +=
      static_cast<float>(0.01 * std::sqrt(squares / static_cast<double>(got.size())));
  const crosscheck::Judgement wrong = judged(repeated.contract);
  EXPECT_EQ(wrong.verdict, crosscheck::Verdict::kFail);
  EXPECT_EQ(wrong.failed, std::vector{kPlanted});
}

// What is not repeated is bounded as well.
TEST_P(TensorCoreTest, BoundsHoldWithoutTheRounding) {
  Scratch scratch;
  reference_(gemm_);
  GemmTolerance bound(gemm_, {tensor_core_contract(gemm_.x.cols(), kHopper)}, gemm_.out);
  for (std::int64_t i = 0; i < gemm_.out.size(); ++i) {
    EXPECT_LE(std::abs(emulated(i, kHopper, Order::kInOrder) - gemm_.out.f32()[i]), bound.at(i));
  }
}

INSTANTIATE_TEST_SUITE_P(Sums, TensorCoreTest,
                         ::testing::Combine(::testing::Values(20, 896, 4864),
                                            ::testing::Values(Values::kRandom, Values::kOutliers,
                                                              Values::kPositive)));

TEST(Rounded, IsTheNearestHalf) {
  std::vector<float> values;
  for (std::uint32_t bits = 0; bits < 0x7f800000u; bits += 4093) {
    values.push_back(std::bit_cast<float>(bits));
    values.push_back(-std::bit_cast<float>(bits));
  }
  std::vector<float> rounded = values;
  crosscheck::round_to_halves(rounded.data(), static_cast<std::int64_t>(rounded.size()), 0x1p-6f);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float half = round_to_f16(values[i] * 0x1p-6f);
    const float want = std::isinf(half) ? values[i] : half * 0x1p6f;
    ASSERT_EQ(rounded[i], want) << values[i];
  }
}

// One query whose keys all have nearly the same score, so that rounded probabilities count most.
TEST(AttentionBound, HoldsForProbabilitiesRoundedToHalves) {
  constexpr std::int64_t kKeys = 640;
  constexpr std::int64_t kDim = 64;
  Scratch scratch;
  fixtures::Random random(3);
  const auto floats = [&](std::initializer_list<std::int64_t> dims, float size) {
    const Tensor t = scratch.take(DType::kF32, dims);
    for (std::int64_t i = 0; i < t.size(); ++i)
      t.f32()[i] = static_cast<float>(size * random.normal());
    return t;
  };
  const auto integers = [&](std::initializer_list<std::int64_t> dims, std::int32_t first) {
    const Tensor t = scratch.take(DType::kI32, dims);
    for (std::int64_t i = 0; i < t.size(); ++i) t.i32()[i] = first + static_cast<std::int32_t>(i);
    return t;
  };
  Attention op{.out = floats({1, 1, kDim}, 0),
               .lse = floats({1, 1}, 0),
               .q = floats({1, 1, kDim}, 0.3f),
               .k_cache = floats({kKeys / 64, 1, 64, kDim}, 1),
               .v_cache = floats({kKeys / 64, 1, 64, kDim}, 1),
               .pos = integers({1}, kKeys - 1),
               .seq = integers({1}, 0),
               .pages = integers({1, kKeys / 64}, 0),
               .scale = 0.125f};
  ReferenceBackend reference;
  reference(op);
  const Contract contract{.probability_unit = 0x1p-11, .probability_step = 0x1p-33};
  const Tolerance t = tolerance(op, contract, op.out, op.lse);

  std::vector<double> score(kKeys);
  for (std::int64_t j = 0; j < kKeys; ++j) {
    for (std::int64_t d = 0; d < kDim; ++d) {
      score[j] += 0.125 * op.q.f32()[d] * op.k_cache.f32()[j * kDim + d];
    }
  }
  const double max = *std::max_element(score.begin(), score.end());
  double total = 0;
  std::vector<double> out(kDim);
  for (std::int64_t j = 0; j < kKeys; ++j) {
    const double p = 256 * std::exp(score[j] - max);
    total += p;
    for (std::int64_t d = 0; d < kDim; ++d) {
      out[d] += double{round_to_f16(static_cast<float>(p))} * op.v_cache.f32()[j * kDim + d];
    }
  }
  double worst = 0;
  double squares = 0;
  double widest = 0;
  for (std::int64_t d = 0; d < kDim; ++d) {
    worst = std::max(worst, std::abs(out[d] / total - op.out.f32()[d]) / t.out[d]);
    squares += double{op.out.f32()[d]} * op.out.f32()[d];
    widest = std::max(widest, t.out[d]);
  }
  EXPECT_LT(worst, 1);
  EXPECT_GT(worst, 0.05);
  // Half of what the sum of the magnitudes gives.
  EXPECT_LT(widest, 0.005 * std::sqrt(squares / kDim));
}

}  // namespace
}  // namespace qwen::testing
