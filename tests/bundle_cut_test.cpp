// What is kept of ops that are too large to keep, and with contracts that no run here has.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/bundle_runs.h"

namespace qwen::testing {
namespace {

using crosscheck::Bundle;

// What is kept of an op with the first `n_wrong` elements of each row wrong.
std::optional<Bundle> cut_wrong(const Op& op, std::int64_t n_wrong, Backend& reference) {
  crosscheck::Scratch scratch;
  Op right = copy_of(op, scratch);
  reference(right);
  const std::vector<Tensor> expected = crosscheck::written(right);
  std::vector<Tensor> got;
  for (const Tensor& t : expected) got.push_back(scratch.copy(t));
  for (std::int64_t i = 0; i < got[0].size(); ++i) {
    if (i % got[0].cols() < n_wrong) got[0].f32()[i] += 1;
  }
  const std::vector<Contract> contracts = {{}};
  const auto judgements = crosscheck::judge(op, expected, got, contracts);
  crosscheck::Divergence divergence;
  divergence.tap = {"wide", 0};
  divergence.output = judgements[0].output;
  return crosscheck::cut({op, got, contracts, judgements, divergence}, reference);
}

Tensor filled(crosscheck::Scratch& scratch, std::initializer_list<std::int64_t> dims, float value) {
  const Tensor t = scratch.take(DType::kF32, dims);
  std::fill(t.f32(), t.f32() + t.size(), value);
  return t;
}

// Every key has the same weight: the probabilities' roundings cancel, by the bound's second form.
Attention uniform_attention(crosscheck::Scratch& scratch) {
  constexpr std::int64_t kPages = 4, kHeads = 2, kPageTokens = 64, kDim = 64, kTokens = 3;
  Attention op{.out = filled(scratch, {kTokens, kHeads, kDim}, 0),
               .lse = filled(scratch, {kTokens, kHeads}, 0),
               .q = filled(scratch, {kTokens, kHeads, kDim}, 0),
               .k_cache = filled(scratch, {kPages, kHeads, kPageTokens, kDim}, 1),
               .v_cache = filled(scratch, {kPages, kHeads, kPageTokens, kDim}, 0),
               .pos = scratch.take(DType::kI32, {kTokens}),
               .seq = scratch.take(DType::kI32, {kTokens}),
               .pages = scratch.take(DType::kI32, {1, kPages}),
               .scale = 0.125f};
  for (std::int64_t i = 0; i < op.v_cache.size(); ++i) {
    op.v_cache.f32()[i] = static_cast<float>(1 + i % 7);
  }
  for (std::int32_t t = 0; t < kTokens; ++t) {
    op.pos.i32()[t] = 200 + t;
    op.seq.i32()[t] = 0;
  }
  for (std::int32_t page = 0; page < kPages; ++page) op.pages.i32()[page] = kPages - 1 - page;
  return op;
}

// Contracts of a GPU, of which a run on a CPU has none: every term of the bounds, and their sum.
TEST_F(BundleTest, BoundsOfAnyContractAgree) {
  if (!has_numpy()) GTEST_SKIP() << python() << " has no NumPy: verify.py is not run";
  const Contract truncating{.sum_depth = 60,
                            .value_sum_depth = 20,
                            .truncates = true,
                            .sum_block = 16,
                            .input_unit = 0x1p-11,
                            .weight_unit = 0x1p-12,
                            .probability_unit = 0x1p-11,
                            .input_step = 0x1p-20,
                            .probability_step = 0x1p-14};
  const Contract deep{.sum_depth = 300, .value_sum_depth = 300};
  Contract unordered = truncating;
  unordered.sum_block = 0;
  std::vector<std::string> folders;
  const auto write_with_each = [&](Bundle bundle) {
    for (const auto& contracts :
         {std::vector{truncating}, std::vector{deep}, std::vector{unordered, deep, truncating}}) {
      bundle.contracts = contracts;
      judge_by(reference_, bundle);
      folders.push_back(dir_ + "/" + std::to_string(folders.size()));
      cli::write_bundle(folders.back(), bundle, cpu_origin());
    }
  };
  for (const char* fault : {"M7a", "M9b", "M8b", "M2a", "M37a"}) {
    write_with_each(std::move(bundles_of(small(), fault_called(fault), DType::kF16).at(0)));
  }
  crosscheck::Scratch scratch;
  write_with_each(*cut_wrong(uniform_attention(scratch), 1, reference_));
  std::string output;
  EXPECT_EQ(verify(folders, output), 0) << output;
}

// Eight rows, unless they do not fit. A row of an addition takes 28 bytes a column.
TEST_F(BundleTest, OfWideOpsFit) {
  constexpr std::int64_t kRows = 20;
  for (const auto& [n_cols, kept] : {std::pair{1000, 8u}, {30'000, 4u}, {150'000, 1u}}) {
    crosscheck::Scratch scratch;
    const Add op{filled(scratch, {kRows, n_cols}, 1), filled(scratch, {kRows, n_cols}, 2)};
    const auto bundle = cut_wrong(op, 1, reference_);
    ASSERT_TRUE(bundle.has_value()) << n_cols;
    EXPECT_EQ(bundle->rows.size(), kept);
    const std::string folder = dir_ + "/" + std::to_string(n_cols);
    cli::write_bundle(folder, *bundle, cpu_origin());
    EXPECT_LE(folder_bytes(folder), 5'000'000u);
  }
  crosscheck::Scratch scratch;
  const Add op{filled(scratch, {1, 200'000}, 1), filled(scratch, {1, 200'000}, 2)};
  EXPECT_FALSE(cut_wrong(op, 1, reference_).has_value());
}

// As wide as the widest product of Qwen2.5-7B: few of its weight's rows, which are the columns of
// the output.
TEST_F(BundleTest, OfALargeProductFits) {
  crosscheck::Scratch scratch;
  const Gemm op{filled(scratch, {16, 512}, 0), filled(scratch, {16, 18944}, 0.5f),
                filled(scratch, {512, 18944}, 0.25f)};
  const auto bundle = cut_wrong(op, 100, reference_);
  ASSERT_TRUE(bundle.has_value());
  EXPECT_EQ(bundle->rows.size(), 8u);
  EXPECT_GE(bundle->columns.size(), 10u);
  const std::string folder = dir_ + "/product";
  cli::write_bundle(folder, *bundle, cpu_origin());
  EXPECT_LE(folder_bytes(folder), 5'000'000u);
}

}  // namespace
}  // namespace qwen::testing
