// Properties of the whole forward pass on a tiny random model with the outliers of real ones: how a
// text is cut into steps and batches must not matter, and no token may see a later one.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"
#include "tests/model_runs.h"

namespace qwen::testing {
namespace {

class ModelTest : public ::testing::TestWithParam<TinyModel> {
 protected:
  static RunResult run(Backend& backend, const std::vector<Ids>& texts,
                       const std::vector<std::size_t>& cuts, bool poison = true) {
    return testing::run(GetParam(), backend, {.texts = texts, .cuts = cuts, .poison = poison});
  }

  // Of the CPU backend.
  static Drift allowed_drift(const Ids& ids) {
    CpuBackend cpu(1, "");
    return testing::allowed_drift(GetParam(), cpu, {.texts = {ids}})[0];
  }
};

TEST_P(ModelTest, WholePrefillEqualsPrefillPlusOneDecodeStep) {
  const auto ids = random_text(41, 1);
  ReferenceBackend reference;
  const RunResult whole = run(reference, {ids}, {});
  const RunResult split = run(reference, {ids}, {ids.size() - 1, 1});
  EXPECT_EQ(distance(whole.logits[0], split.logits[0]), 0);
  EXPECT_EQ(distance(whole.cache[0], split.cache[0]), 0);

  const Drift drift = allowed_drift(ids);
  CpuBackend cpu(2, "");
  const RunResult cpu_whole = run(cpu, {ids}, {});
  const RunResult cpu_split = run(cpu, {ids}, {ids.size() - 1, 1});
  EXPECT_LE(distance(cpu_whole.logits[0], cpu_split.logits[0]), drift.logits);
  EXPECT_LE(distance(cpu_whole.cache[0], cpu_split.cache[0]), drift.cache);
  EXPECT_LE(distance(cpu_whole.logits[0], whole.logits[0]), drift.logits);
  EXPECT_LE(distance(cpu_whole.cache[0], whole.cache[0]), drift.cache);
}

TEST_P(ModelTest, RaggedBatchEqualsEachSequenceAlone) {
  const std::vector<Ids> texts = {random_text(5, 2), random_text(67, 3), random_text(18, 4)};
  ReferenceBackend reference;
  CpuBackend cpu(2, "");
  const RunResult batch = run(reference, texts, {3, 9});
  const RunResult cpu_batch = run(cpu, texts, {3, 9});
  for (std::size_t s = 0; s < texts.size(); ++s) {
    const RunResult alone = run(reference, {texts[s]}, {});
    EXPECT_EQ(distance(batch.logits[s], alone.logits[0]), 0) << "sequence " << s;
    EXPECT_EQ(distance(batch.cache[s], alone.cache[0]), 0) << "sequence " << s;
    const Drift drift = allowed_drift(texts[s]);
    const RunResult cpu_alone = run(cpu, {texts[s]}, {});
    EXPECT_LE(distance(cpu_batch.logits[s], cpu_alone.logits[0]), drift.logits) << "sequence " << s;
    EXPECT_LE(distance(cpu_batch.cache[s], cpu_alone.cache[0]), drift.cache) << "sequence " << s;
  }
}

TEST_P(ModelTest, LaterTokensDoNotReachEarlierOutputs) {
  const auto ids = random_text(40, 5);
  const std::size_t changed = 23;
  auto other = ids;
  other[changed] = (other[changed] + 1) % 250;
  ReferenceBackend reference;
  CpuBackend cpu(2, "");
  for (Backend* backend : {static_cast<Backend*>(&reference), static_cast<Backend*>(&cpu)}) {
    const PlacedModel placed(GetParam(), *backend);
    std::vector<std::vector<float>> logits;
    std::vector<std::vector<float>> cache;
    for (const auto& input : {ids, other}) {
      Session session(*placed.model, *backend,
                      {.ctx = 64, .max_step_tokens = 64, .max_step_rows = 64});
      std::vector<TokenInput> tokens;
      for (std::size_t i = 0; i < input.size(); ++i) {
        tokens.push_back({input[i], static_cast<std::int32_t>(i), 0, true});
      }
      const Tensor rows = session.step(tokens);
      logits.emplace_back(rows.f32(), rows.f32() + rows.size());
      cache.push_back(cached(session, 0, changed));
    }
    const std::size_t n_vocab = logits[0].size() / ids.size();
    EXPECT_EQ(std::memcmp(logits[0].data(), logits[1].data(), changed * n_vocab * sizeof(float)), 0)
        << backend->name();
    EXPECT_EQ(cache[0], cache[1]) << backend->name();
    EXPECT_NE(std::memcmp(logits[0].data() + changed * n_vocab,
                          logits[1].data() + changed * n_vocab, n_vocab * sizeof(float)),
              0)
        << "the changed token must change its own output";
  }
}

TEST_P(ModelTest, KeysAreCenteredOnTheMeanOfTheRotatedBias) {
  ReferenceBackend reference;
  const PlacedModel placed(GetParam(), reference);
  Session session(*placed.model, reference, {.ctx = 64});
  Plan plan;
  {
    const RecordingScope recording(reference, plan);
    session.prefill(0, random_text(2, 10));
  }
  const float* bias = nullptr;
  const float* inv_freq = nullptr;
  int n_layers = 0;
  for (const Node& node : plan) {
    if (node.tap.name == "k_bias") bias = std::get<AddBias>(node.op).bias.f32();
    if (node.tap.name == "rope_k") inv_freq = std::get<Rope>(node.op).inv_freq.f32();
    if (node.tap.name != "kv_write") continue;
    ++n_layers;
    const Tensor center = std::get<KvWrite>(node.op).k_center;
    const std::int64_t head_dim = center.shape[1];
    const std::int64_t half = head_dim / 2;
    for (std::int64_t head = 0; head < center.shape[0]; ++head) {
      const float* b = bias + head * head_dim;
      for (std::int64_t i = 0; i < half; ++i) {
        double low = 0;
        double high = 0;
        for (int pos = 0; pos < 4096; ++pos) {
          const double angle = double{inv_freq[i]} * pos;
          low += b[i] * std::cos(angle) - b[i + half] * std::sin(angle);
          high += b[i + half] * std::cos(angle) + b[i] * std::sin(angle);
        }
        // Rounded to F32 once; in FP64 the sum and the series differ by far less than 1e-9.
        const auto allowed = [](double mean) { return 0x1p-24 * std::abs(mean) + 1e-9; };
        low /= 4096;
        high /= 4096;
        EXPECT_NEAR(center.f32()[head * head_dim + i], low, allowed(low)) << head << " " << i;
        EXPECT_NEAR(center.f32()[head * head_dim + i + half], high, allowed(high));
      }
    }
  }
  EXPECT_EQ(n_layers, placed.model->shape().n_layers);
}

TEST_P(ModelTest, SameBitsForAnyNumberOfThreadsOnEveryInstructionSet) {
  const std::vector<Ids> texts = {random_text(50, 6), random_text(7, 7)};
  for (const std::string_view isa : CpuBackend::usable_isas()) {
    CpuBackend one(1, isa);
    const RunResult expected = run(one, texts, {40, 1, 1});
    for (const int threads : {2, 3}) {
      CpuBackend many(threads, isa);
      const RunResult got = run(many, texts, {40, 1, 1});
      EXPECT_EQ(got.logits, expected.logits) << isa << " " << threads;
      EXPECT_EQ(got.cache, expected.cache) << isa << " " << threads;
    }
  }
}

TEST_P(ModelTest, PoisonedCacheChangesNothing) {
  const auto ids = random_text(30, 8);
  ReferenceBackend reference;
  CpuBackend cpu(1, "");
  for (Backend* backend : {static_cast<Backend*>(&reference), static_cast<Backend*>(&cpu)}) {
    const RunResult poisoned = run(*backend, {ids}, {20, 1}, true);
    const RunResult clean = run(*backend, {ids}, {20, 1}, false);
    EXPECT_EQ(poisoned.logits, clean.logits) << backend->name();
  }
}

TEST_P(ModelTest, RecordedStepReplaysWithTheSameBits) {
  CpuBackend cpu(1, "");
  const PlacedModel placed(GetParam(), cpu);
  const auto ids = random_text(12, 9);
  Session session(*placed.model, cpu, {.ctx = 64});
  Plan plan;
  cpu.record(&plan);
  session.prefill(0, ids);
  cpu.record(nullptr);
  ASSERT_EQ(plan.size(), 1 + 2 * 19 + 3u);
  EXPECT_EQ(plan[2].tap.name, "q_proj");
  EXPECT_EQ(plan[2].tap.layer, 0);
  const Tensor logits = std::get<Gemm>(plan.back().op).out;
  cpu.replay(plan);
  const std::vector<float> replayed(logits.f32(), logits.f32() + logits.size());
  session.prefill(0, ids);
  EXPECT_EQ(std::memcmp(replayed.data(), logits.data, logits.bytes()), 0);
}

INSTANTIATE_TEST_SUITE_P(Tiny, ModelTest, ::testing::ValuesIn(tiny_models()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace qwen::testing
