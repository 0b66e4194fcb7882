// Parts of core without a model: the sampler, op validation, the cache's pages, the generation
// loop.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "backends/cpu/reference/reference.h"
#include "core/error.h"
#include "core/generate.h"
#include "core/kv_layout.h"
#include "tests/error_of.h"

namespace qwen::testing {
namespace {

std::string code_of(const std::function<void()>& action) { return error_of(action).code; }

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::int32_t sampled(std::vector<float> logits, SampleParams params, std::int32_t pos = 0,
                     std::vector<std::int8_t> seen = {}) {
  seen.resize(logits.size());
  return sample(logits, seen, params, pos);
}

TEST(Sampler, GreedyTakesTheLargestAndTheLowestIdAmongEquals) {
  EXPECT_EQ(sampled({1, 5, 5, 2}, {}), 1);
  EXPECT_EQ(sampled({-kInfinity, std::nanf(""), -3}, {}), 2);
}

TEST(Sampler, RepeatPenaltyLowersSeenTokensOfEitherSign) {
  EXPECT_EQ(sampled({4.0f, 3.9f}, {.repeat_penalty = 1.1f}, 0, {1, 0}), 1);
  EXPECT_EQ(sampled({-4.0f, -4.1f}, {.repeat_penalty = 1.1f}, 0, {1, 0}), 1);
  EXPECT_EQ(sampled({4.0f, 3.9f}, {.repeat_penalty = 1.0f}, 0, {1, 0}), 0);
}

TEST(Sampler, TopKOfOneIsGreedy) {
  for (int pos = 0; pos < 50; ++pos) {
    EXPECT_EQ(sampled({0.1f, 0.3f, 0.2f}, {.temp = 5, .top_k = 1}, pos), 1);
  }
}

TEST(Sampler, LimitsKeepExactlyTheRightCandidates) {
  // Probabilities 0.5, 0.25, 0.125, 0.125 at temperature 1.
  const std::vector<float> logits = {std::log(4.0f), std::log(2.0f), 0.0f, 0.0f};
  const auto support = [&](SampleParams params) {
    std::string kept(logits.size(), '-');
    for (int pos = 0; pos < 400; ++pos) kept[sampled(logits, params, pos)] = 'x';
    return kept;
  };
  EXPECT_EQ(support({.temp = 1}), "xxxx");
  EXPECT_EQ(support({.temp = 1, .top_k = 2}), "xx--");
  EXPECT_EQ(support({.temp = 1, .top_k = 3}), "xxx-");
  EXPECT_EQ(support({.temp = 1, .top_p = 0.4f}), "x---");
  EXPECT_EQ(support({.temp = 1, .top_p = 0.6f}), "xx--");
  EXPECT_EQ(support({.temp = 1, .min_p = 0.3f}), "xx--");
  EXPECT_EQ(support({.temp = 1, .min_p = 0.6f}), "x---");
}

TEST(Sampler, FrequenciesFollowTheProbabilitiesAtTheTemperature) {
  const std::vector<float> logits = {0.0f, 1.0f, -1.0f, 0.5f};
  const double temp = 0.7;
  double total = 0;
  std::vector<double> p;
  for (const float l : logits) total += p.emplace_back(std::exp(l / temp));
  const int n = 20000;
  std::vector<int> count(logits.size());
  for (int pos = 0; pos < n; ++pos) {
    ++count[sampled(logits, {.temp = static_cast<float>(temp), .seed_low = 7}, pos)];
  }
  double chi2 = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double expected = n * p[i] / total;
    chi2 += (count[i] - expected) * (count[i] - expected) / expected;
  }
  EXPECT_LT(chi2,
            16.3);  // 3 degrees of freedom, 0.1 % level; the draws are fixed, so it never flakes
}

TEST(Sampler, DrawsArePhiloxOfSeedStreamAndPosition) {
  // Random123's known answer for counter 0, key 0: 6627e8d5 e169c58d ...
  EXPECT_EQ(uniform_draw({}, 0), static_cast<double>(0xe169c58d6627e8d5u >> 11) * 0x1p-53);
  const SampleParams base{.seed_low = 1};
  EXPECT_NE(uniform_draw(base, 0), uniform_draw(base, 1));
  EXPECT_NE(uniform_draw(base, 0), uniform_draw({.seed_low = 2}, 0));
  EXPECT_NE(uniform_draw(base, 0), uniform_draw({.seed_low = 1, .seed_high = 1}, 0));
  EXPECT_NE(uniform_draw(base, 0), uniform_draw({.seed_low = 1, .stream = 1}, 0));
}

TEST(Ops, OverlapShapeAndTypeAreRefused) {
  ReferenceBackend backend;
  std::vector<float> data(64);
  const Tensor a(data.data(), DType::kF32, {2, 8});
  const Tensor b(data.data() + 16, DType::kF32, {2, 8});
  const Tensor w(data.data() + 32, DType::kF32, {8, 4});
  const Tensor vector(data.data() + 32, DType::kF32, {8});
  EXPECT_EQ(code_of([&] { backend(RmsNorm{a, b, vector, 1e-6f}); }), "");
  EXPECT_EQ(code_of([&] {
              backend(RmsNorm{a, a, vector, 1e-6f});
            }),
            "invalid_op")
      << "out overlaps x";
  EXPECT_EQ(code_of([&] { backend(RmsNorm{a, b, vector.slice(0, 7), 1e-6f}); }), "invalid_op");
  EXPECT_EQ(code_of([&] { backend(RmsNorm{a, b, vector, 0.0f}); }), "invalid_op");
  EXPECT_EQ(code_of([&] { backend(Gemm{a, b, w}); }), "invalid_op") << "transposed weight";
  EXPECT_EQ(code_of([&] { backend(Add{a, a.slice(0, 1)}); }), "invalid_op");
  const Tensor ids(data.data() + 32, DType::kI32, {2});
  EXPECT_EQ(code_of([&] {
              backend(TakeRows{a, b, vector.slice(0, 2)});
            }),
            "invalid_op")
      << "rows are not I32";
  EXPECT_EQ(code_of([&] { backend(TakeRows{a, b, ids.slice(0, 1)}); }), "invalid_op");
}

TEST(Ops, KvWriteNeedsACenterForEveryHead) {
  ReferenceBackend backend;
  std::vector<float> cache(2 * 16 * 4), key(8), center(8);
  std::vector<std::int32_t> zero(1);
  const Tensor pages(zero.data(), DType::kI32, {1, 1});
  const Tensor at = pages.reshape({1});
  const Tensor k_cache(cache.data(), DType::kF32, {1, 1, 16, 4});
  const Tensor v_cache(cache.data() + 64, DType::kF32, {1, 1, 16, 4});
  const Tensor k(key.data(), DType::kF32, {1, 1, 4});
  const Tensor v(key.data() + 4, DType::kF32, {1, 1, 4});
  const auto write = [&](const Tensor& k_center) {
    return code_of([&] { backend(KvWrite{k_cache, v_cache, k, v, k_center, at, at, pages}); });
  };
  EXPECT_EQ(write(Tensor(center.data(), DType::kF32, {1, 4})), "");
  EXPECT_EQ(write(Tensor(center.data(), DType::kF32, {2, 4})), "invalid_op");
  EXPECT_EQ(write(Tensor(center.data(), DType::kF32, {4})), "invalid_op");
  EXPECT_EQ(write(Tensor(center.data(), DType::kF16, {1, 4})), "invalid_op");
}

TEST(KvCache, PagesOfASequenceComeAndGo) {
  ReferenceBackend backend;
  KvCache cache(backend, {.n_layers = 2, .n_kv_heads = 1, .head_dim = 4, .n_seqs = 2, .ctx = 150},
                true);
  EXPECT_EQ(cache.pages().shape[1], 3);
  const std::int32_t* table = cache.pages().i32();
  EXPECT_EQ(table[0], -1);
  cache.reserve(0, 65);
  EXPECT_GE(table[0], 0);
  EXPECT_GE(table[1], 0);
  EXPECT_EQ(table[2], -1);
  cache.reserve(1, 150);
  std::vector<std::int32_t> used = {table[0], table[1], table[3], table[4], table[5]};
  std::sort(used.begin(), used.end());
  EXPECT_EQ(std::unique(used.begin(), used.end()), used.end()) << "a page given out twice";

  const KvLayout layout = kv_layout(cache.k(1), cache.pages());
  float& slot = cache.k(1).f32()[kv_offset(layout, table, 1, 0, 149, 3)];
  EXPECT_TRUE(std::isnan(slot)) << "unused slots are poisoned";
  slot = 1;
  cache.release(1);
  EXPECT_TRUE(std::isnan(slot)) << "a released page is cleared";
  EXPECT_EQ(table[3], -1);
  EXPECT_EQ(code_of([&] { cache.reserve(0, 151); }), "context_full");
}

// A model whose logits say: the next token is the last one plus one.
class CountingModel : public Model {
 public:
  CountingModel() {
    shape_ = {.arch = "counting",
              .n_layers = 1,
              .dim = 1,
              .n_heads = 1,
              .n_kv_heads = 1,
              .head_dim = 2,
              .ffn_dim = 1,
              .n_vocab = 10,
              .context_length = 16,
              .n_params = 0};
  }
  const ModelShape& shape() const override { return shape_; }
  Tensor forward(Backend& backend, const Step& step, const KvCache&, Arena& arena,
                 std::int64_t) const override {
    steps.push_back(step.ids.shape[0]);
    const Tensor rows = arena.take(DType::kF32, {step.ids.shape[0], 10});
    const Tensor logits = arena.take(DType::kF32, {step.rows.shape[0], 10});
    backend(Embed{rows, Tensor(table_.data(), DType::kF32, {10, 10}), step.ids});
    backend(TakeRows{logits, rows, step.rows});
    return logits;
  }
  // All logits become `value`.
  void flatten(float value) { table_.fill(value); }
  mutable std::vector<std::int64_t> steps;

 private:
  static std::array<float, 100> successors() {
    std::array<float, 100> table{};
    for (int id = 0; id < 10; ++id) table[id * 10 + (id + 1) % 10] = 1;
    return table;
  }
  mutable std::array<float, 100> table_ = successors();
  ModelShape shape_;
};

TEST(Generate, StopsForEachReason) {
  ReferenceBackend backend;
  CountingModel model;
  const std::vector<std::int32_t> prompt = {1, 2, 3};
  const auto run = [&](GenerateOptions options, std::int64_t ctx,
                       Verdict verdict = Verdict::kContinue) {
    Session session(model, backend, {.ctx = ctx});
    return generate(session, 0, prompt, 0, options, [&](std::int32_t) { return verdict; });
  };
  const Generation eos = run({.stop_ids = {6}}, 16);
  EXPECT_EQ(eos.ids, (std::vector<std::int32_t>{4, 5, 6}));
  EXPECT_EQ(eos.stop, StopReason::kEos);
  const Generation length = run({.max_tokens = 2, .stop_ids = {6}}, 16);
  EXPECT_EQ(length.ids, (std::vector<std::int32_t>{4, 5}));
  EXPECT_EQ(length.stop, StopReason::kLength);
  const Generation context = run({}, 5);
  EXPECT_EQ(context.ids, (std::vector<std::int32_t>{4, 5, 6})) << "the last token needs no slot";
  EXPECT_EQ(context.stop, StopReason::kContext);
  EXPECT_EQ(run({}, 16, Verdict::kStop).stop, StopReason::kStop);
  EXPECT_EQ(run({}, 16, Verdict::kInterrupt).ids.size(), 1u);
  EXPECT_TRUE(run({.max_tokens = 0}, 16).ids.empty());
  EXPECT_EQ(code_of([&] { run({}, 3); }), "prompt_too_long");
}

// A backend that steps are queued ahead on.
class QueueingBackend : public ReferenceBackend {
 public:
  int queue_depth() const override { return 2; }
};

TEST(Generate, QueuedAheadGivesTheSameTokensAndEndsTheSameWay) {
  const std::vector<std::int32_t> prompt = {1, 2, 3};
  for (const GenerateOptions& options :
       {GenerateOptions{.stop_ids = {6}}, GenerateOptions{.max_tokens = 2},
        GenerateOptions{.max_tokens = 1}, GenerateOptions{}}) {
    for (const std::int64_t ctx : {4, 5, 16}) {
      CountingModel model;
      ReferenceBackend stepwise;
      QueueingBackend queueing;
      Session one(model, stepwise, {.ctx = ctx});
      Session other(model, queueing, {.ctx = ctx});
      const auto go_on = [](std::int32_t) { return Verdict::kContinue; };
      const Generation a = generate(one, 0, prompt, 0, options, go_on);
      const Generation b = generate(other, 0, prompt, 0, options, go_on);
      EXPECT_EQ(a.ids, b.ids);
      EXPECT_EQ(a.stop, b.stop);
      EXPECT_LE(other.n_queued(), 2) << "no more steps in vain than the depth";
    }
  }
}

TEST(Session, WhatWasQueuedIsForgottenByTheNextStep) {
  QueueingBackend backend;
  CountingModel model;
  Session session(model, backend, {.ctx = 16});
  session.prefill(0, std::vector<std::int32_t>{1, 2});
  session.queue_sample();
  session.queue_decode();
  session.queue_decode();
  EXPECT_EQ(session.take(), std::vector<std::int32_t>{3});
  EXPECT_EQ(session.n_queued(), 2);
  session.prefill(0, std::vector<std::int32_t>{7}, 2);
  EXPECT_EQ(session.n_queued(), 0);
  EXPECT_EQ(session.sample(), std::vector<std::int32_t>{8});
  session.queue_decode();
  EXPECT_EQ(session.take(), std::vector<std::int32_t>{9});
  session.reset(0);
  EXPECT_EQ(code_of([&] { session.queue_decode(); }), "invalid_step") << "nothing was chosen";
  EXPECT_EQ(code_of([&] { session.take(); }), "invalid_step");
}

TEST(Session, RefusesWhatItCouldNotKeepAccountOf) {
  QueueingBackend backend;
  CountingModel model;
  Session session(model, backend, {.ctx = 16});
  session.prefill(0, std::vector<std::int32_t>{1});
  session.queue_sample();
  for (int i = 0; i < 7; ++i) session.queue_decode();
  EXPECT_EQ(code_of([&] { session.queue_decode(); }), "invalid_step") << "too many at once";
  for (int i = 0; i < 8; ++i) EXPECT_EQ(session.take(), std::vector<std::int32_t>{2 + i});
  session.queue_decode();
  EXPECT_EQ(session.take(), std::vector<std::int32_t>{0}) << "and nothing was lost";
  EXPECT_EQ(code_of([&] { session.sample(); }), "invalid_step") << "that choice was made already";
}

TEST(Session, NamesTheStepOfAQueuedTokenThatIsNotFinite) {
  QueueingBackend backend;
  CountingModel model;
  Session session(model, backend, {.ctx = 16});
  session.prefill(0, std::vector<std::int32_t>{1, 2});
  session.queue_sample();
  EXPECT_EQ(session.take(), std::vector<std::int32_t>{3});
  model.flatten(std::nanf(""));
  session.queue_decode();
  EXPECT_EQ(code_of([&] { session.take(); }), "not_finite");
}

// Fails in every Embed.
class FailingBackend : public ReferenceBackend {
 protected:
  using ReferenceBackend::run;
  void run(const Embed&) override { throw Error({.code = "broken", .message = "it broke"}); }
};

TEST(Backend, NamesTheOpThatFailed) {
  FailingBackend backend;
  std::array<float, 8> data{};
  std::int32_t id = 0;
  const Embed op{Tensor(data.data(), DType::kF32, {1, 2}),
                 Tensor(data.data() + 4, DType::kF32, {2, 2}), Tensor(&id, DType::kI32, {1})};
  const ErrorInfo info = error_of([&] { backend(op, {"embed", 3}); });
  EXPECT_EQ(info.code, "broken");
  EXPECT_EQ(info.message, "it broke, in Embed embed of layer 3");
}

TEST(Session, DrawsForThePositionThatTheTokenWillHave) {
  ReferenceBackend backend;
  CountingModel model;
  Session session(model, backend, {.ctx = 16});
  model.flatten(0);
  const SampleParams params{.temp = 1, .seed_low = 5};
  session.set_sampling(0, params);
  const std::vector<float> logits(10, 0.0f);
  const std::vector<std::int8_t> seen(10, 0);
  for (std::int32_t pos = 0; pos < 12; ++pos) {
    const TokenInput in{1, pos, 0, true};
    session.step({&in, 1});
    EXPECT_EQ(session.sample()[0], sample(logits, seen, params, pos + 1)) << pos;
  }
}

TEST(Session, CutsAPrefillIntoStepsAndRefusesBadInput) {
  ReferenceBackend backend;
  CountingModel model;
  Session session(model, backend, {.ctx = 16, .max_step_tokens = 4});
  model.steps.clear();
  const std::vector<std::int32_t> ids = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  session.prefill(0, ids);
  EXPECT_EQ(model.steps, (std::vector<std::int64_t>{4, 4, 1}));
  EXPECT_EQ(session.sample(), std::vector<std::int32_t>{0});
  const auto step = [&](TokenInput in) { return code_of([&] { session.step({&in, 1}); }); };
  EXPECT_EQ(step({.id = 10}), "invalid_step");
  EXPECT_EQ(step({.id = -1}), "invalid_step");
  EXPECT_EQ(step({.id = 1, .seq = 1}), "invalid_step");
  EXPECT_EQ(step({.id = 1, .pos = 16}), "context_full");
  model.flatten(std::nanf(""));
  const TokenInput next{1, 9, 0, true};
  session.step({&next, 1});
  EXPECT_EQ(code_of([&] { session.sample(); }), "not_finite");
}

}  // namespace
}  // namespace qwen::testing
