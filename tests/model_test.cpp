// Properties of the whole forward pass on a tiny random model with the outliers of real ones: how a
// text is cut into steps and batches must not matter, and no token may see a later one.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"
#include "core/kv_layout.h"
#include "tests/fixtures/random.h"
#include "tests/fixtures/tiny_model.h"
#include "tests/real_model.h"

namespace qwen::testing {
namespace {

using fixtures::Random;

// The reference, each output moved by up to the bound that the CPU backend's contract allows: how
// far such twins drift from the exact run says how far two correct CPU runs may differ at the end
// of the network, where no closed bound is known.
class TwinBackend : public ReferenceBackend {
 public:
  explicit TwinBackend(std::uint64_t seed) : random_(seed), contract_of_(1, "") {}

 protected:
  using ReferenceBackend::run;
  void run(const RmsNorm& op) override { perturbed(op, op.out); }
  void run(const Gemm& op) override { perturbed(op, op.out); }
  void run(const Attention& op) override { perturbed(op, op.out, op.lse); }
  void run(const SiluMul& op) override { perturbed(op, op.out); }

 private:
  template <class T>
  void perturbed(const T& op, const Tensor& out, const Tensor& lse = {}) {
    ReferenceBackend::run(op);
    const Tolerance bound = tolerance(op, contract_of_.contract(op), out, lse);
    for (std::int64_t i = 0; i < out.size(); ++i) {
      out.f32()[i] += static_cast<float>(bound.out[i] * random_.uniform(-1, 1));
    }
  }

  Random random_;
  CpuBackend contract_of_;
};

struct ModelParam {
  std::string name;
  fixtures::TinyModelSpec spec;
};

std::vector<ModelParam> model_params() {
  // Groups of 2, 7 and 3 query heads; head_dim 64 and 128; tied and untied heads; three weight
  // formats.
  return {{"F32",
           {.dtype = DType::kF32, .n_heads = 4, .n_kv_heads = 2, .head_dim = 64, .ffn_dim = 384}},
          {"F16",
           {.dtype = DType::kF16,
            .n_heads = 7,
            .n_kv_heads = 1,
            .head_dim = 64,
            .ffn_dim = 448,
            .tied = false}},
          {"Q8_0",
           {.dtype = DType::kQ8_0,
            .n_heads = 6,
            .n_kv_heads = 2,
            .head_dim = 128,
            .dim = 256,
            .ffn_dim = 512}}};
}

class ModelTest : public ::testing::TestWithParam<ModelParam> {
 protected:
  static std::shared_ptr<const Source> source() {
    return from_memory(fixtures::tiny_model(GetParam().spec).bytes(), "tiny");
  }

  // The model on `backend`.
  struct Placed {
    std::unique_ptr<GgufModelFile> file;
    std::unique_ptr<Model> model;
  };
  static Placed place(Backend& backend) {
    Placed p{std::make_unique<GgufModelFile>(Gguf::parse(source())), nullptr};
    p.model = load_model(*p.file, backend);
    return p;
  }

  static std::vector<std::int32_t> text(std::size_t n, std::uint64_t seed) {
    Random random(seed);
    std::vector<std::int32_t> ids;
    for (std::size_t i = 0; i < n; ++i) ids.push_back(static_cast<std::int32_t>(random.below(250)));
    return ids;
  }

  // What a run leaves: the last logits of each sequence, and its cached keys and values.
  struct Result {
    std::vector<std::vector<float>> logits;
    std::vector<std::vector<float>> cache;
  };

  static std::vector<float> cached(const Session& session, std::int32_t seq, std::int64_t n) {
    std::vector<float> values;
    const Tensor pages = session.kv().pages();
    for (std::int64_t layer = 0; layer < session.kv().shape().n_layers; ++layer) {
      for (const Tensor& t : {session.kv().k(layer), session.kv().v(layer)}) {
        const KvLayout layout = kv_layout(t, pages);
        for (std::int64_t head = 0; head < layout.n_kv_heads; ++head) {
          for (std::int64_t pos = 0; pos < n; ++pos) {
            const float* row = t.f32() + kv_offset(layout, pages.i32(), seq, head, pos, 0);
            values.insert(values.end(), row, row + layout.head_dim);
          }
        }
      }
    }
    return values;
  }

  // Feeds each text in steps of the given sizes (the rest in one); all texts advance together.
  static Result run(Backend& backend, const std::vector<std::vector<std::int32_t>>& texts,
                    const std::vector<std::size_t>& cuts, bool poison = true) {
    const Placed placed = place(backend);
    const auto n_seqs = static_cast<std::int64_t>(texts.size());
    Session session(*placed.model, backend,
                    {.ctx = 200,
                     .n_seqs = n_seqs,
                     .max_step_tokens = 400,
                     .max_step_rows = n_seqs,
                     .poison = poison});
    Result result;
    result.logits.resize(texts.size());
    std::vector<std::size_t> at(texts.size());
    for (std::size_t step = 0;; ++step) {
      std::vector<TokenInput> tokens;
      std::vector<std::size_t> finished;
      for (std::size_t s = 0; s < texts.size(); ++s) {
        const std::size_t size = step < cuts.size() ? cuts[step] : texts[s].size();
        const std::size_t end = std::min(at[s] + size, texts[s].size());
        for (; at[s] < end; ++at[s]) {
          const bool last = at[s] + 1 == texts[s].size();
          tokens.push_back({texts[s][at[s]], static_cast<std::int32_t>(at[s]),
                            static_cast<std::int32_t>(s), last});
          if (last) finished.push_back(s);
        }
      }
      if (tokens.empty()) break;
      const Tensor logits = session.step(tokens);
      for (std::size_t i = 0; i < finished.size(); ++i) {
        const float* row = logits.f32() + static_cast<std::int64_t>(i) * logits.cols();
        result.logits[finished[i]].assign(row, row + logits.cols());
      }
    }
    for (std::size_t s = 0; s < texts.size(); ++s) {
      result.cache.push_back(cached(session, static_cast<std::int32_t>(s),
                                    static_cast<std::int64_t>(texts[s].size())));
    }
    return result;
  }

  static double distance(const std::vector<float>& a, const std::vector<float>& b) {
    EXPECT_EQ(a.size(), b.size());
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double d = std::abs(double{a[i]} - b[i]);
      if (!(d <= largest)) largest = d;  // keeps not-a-number
    }
    return largest;
  }

  // Three times the largest drift of 8 twins, for logits and cache: each of two CPU runs may drift
  // by the twins' amount from the exact one, and the largest of 8 samples is not the largest there
  // is.
  struct Drift {
    double logits = 0, cache = 0;
  };
  static Drift allowed_drift(const std::vector<std::int32_t>& ids) {
    ReferenceBackend reference;
    const Result exact = run(reference, {ids}, {});
    Drift drift;
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
      TwinBackend twin(seed);
      const Result moved = run(twin, {ids}, {});
      const double logits = distance(moved.logits[0], exact.logits[0]);
      const double cache = distance(moved.cache[0], exact.cache[0]);
      EXPECT_TRUE(std::isfinite(logits) && std::isfinite(cache));
      drift.logits = std::max(drift.logits, logits);
      drift.cache = std::max(drift.cache, cache);
    }
    EXPECT_GT(drift.logits, 0);
    return {3 * drift.logits, 3 * drift.cache};
  }
};

TEST_P(ModelTest, WholePrefillEqualsPrefillPlusOneDecodeStep) {
  const auto ids = text(41, 1);
  ReferenceBackend reference;
  const Result whole = run(reference, {ids}, {});
  const Result split = run(reference, {ids}, {ids.size() - 1, 1});
  EXPECT_EQ(distance(whole.logits[0], split.logits[0]), 0);
  EXPECT_EQ(distance(whole.cache[0], split.cache[0]), 0);

  const Drift drift = allowed_drift(ids);
  CpuBackend cpu(2, "");
  const Result cpu_whole = run(cpu, {ids}, {});
  const Result cpu_split = run(cpu, {ids}, {ids.size() - 1, 1});
  EXPECT_LE(distance(cpu_whole.logits[0], cpu_split.logits[0]), drift.logits);
  EXPECT_LE(distance(cpu_whole.cache[0], cpu_split.cache[0]), drift.cache);
  EXPECT_LE(distance(cpu_whole.logits[0], whole.logits[0]), drift.logits);
  EXPECT_LE(distance(cpu_whole.cache[0], whole.cache[0]), drift.cache);
}

TEST_P(ModelTest, RaggedBatchEqualsEachSequenceAlone) {
  const std::vector<std::vector<std::int32_t>> texts = {text(5, 2), text(67, 3), text(18, 4)};
  ReferenceBackend reference;
  CpuBackend cpu(2, "");
  const Result batch = run(reference, texts, {3, 9});
  const Result cpu_batch = run(cpu, texts, {3, 9});
  for (std::size_t s = 0; s < texts.size(); ++s) {
    const Result alone = run(reference, {texts[s]}, {});
    EXPECT_EQ(distance(batch.logits[s], alone.logits[0]), 0) << "sequence " << s;
    EXPECT_EQ(distance(batch.cache[s], alone.cache[0]), 0) << "sequence " << s;
    const Drift drift = allowed_drift(texts[s]);
    const Result cpu_alone = run(cpu, {texts[s]}, {});
    EXPECT_LE(distance(cpu_batch.logits[s], cpu_alone.logits[0]), drift.logits) << "sequence " << s;
    EXPECT_LE(distance(cpu_batch.cache[s], cpu_alone.cache[0]), drift.cache) << "sequence " << s;
  }
}

TEST_P(ModelTest, LaterTokensDoNotReachEarlierOutputs) {
  const auto ids = text(40, 5);
  const std::size_t changed = 23;
  auto other = ids;
  other[changed] = (other[changed] + 1) % 250;
  ReferenceBackend reference;
  CpuBackend cpu(2, "");
  for (Backend* backend : {static_cast<Backend*>(&reference), static_cast<Backend*>(&cpu)}) {
    const Placed placed = place(*backend);
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

TEST_P(ModelTest, SameBitsForAnyNumberOfThreadsOnEveryInstructionSet) {
  const std::vector<std::vector<std::int32_t>> texts = {text(50, 6), text(7, 7)};
  for (const std::string_view isa : CpuBackend::usable_isas()) {
    CpuBackend one(1, isa);
    const Result expected = run(one, texts, {40, 1, 1});
    for (const int threads : {2, 3}) {
      CpuBackend many(threads, isa);
      const Result got = run(many, texts, {40, 1, 1});
      EXPECT_EQ(got.logits, expected.logits) << isa << " " << threads;
      EXPECT_EQ(got.cache, expected.cache) << isa << " " << threads;
    }
  }
}

TEST_P(ModelTest, PoisonedCacheChangesNothing) {
  const auto ids = text(30, 8);
  ReferenceBackend reference;
  CpuBackend cpu(1, "");
  for (Backend* backend : {static_cast<Backend*>(&reference), static_cast<Backend*>(&cpu)}) {
    const Result poisoned = run(*backend, {ids}, {20, 1}, true);
    const Result clean = run(*backend, {ids}, {20, 1}, false);
    EXPECT_EQ(poisoned.logits, clean.logits) << backend->name();
  }
}

TEST_P(ModelTest, RecordedStepReplaysWithTheSameBits) {
  CpuBackend cpu(1, "");
  const Placed placed = place(cpu);
  const auto ids = text(12, 9);
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

INSTANTIATE_TEST_SUITE_P(Tiny, ModelTest, ::testing::ValuesIn(model_params()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace qwen::testing
