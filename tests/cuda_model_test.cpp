// The properties of model_test on the GPU, and those of its ways to run: op by op, as a graph,
// fused. Skipped where there is no GPU.
//
// QWEN_TEST_DEVICE=cpu runs the same tests on the CPU backend, which shows that they can pass.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "backends/cpu/reference/reference.h"
#include "backends/registry.h"
#include "core/generate.h"
#include "tests/error_of.h"
#include "tests/model_runs.h"
#include "tests/usable_device.h"

namespace qwen::testing {
namespace {

using Level = CudaOptions::Level;

std::string device_kind() {
  const char* kind = std::getenv("QWEN_TEST_DEVICE");
  return kind == nullptr ? "cuda" : kind;
}

// How the backend and the session are set.
struct Setting {
  std::string name;
  Level level;
  bool exact;
  DType kv_dtype;
};

const std::vector<Setting>& settings() {
  static const std::vector<Setting> all = {
      {"eager exact F32", Level::kEager, true, DType::kF32},
      {"fused exact F32", Level::kFused, true, DType::kF32},
      {"eager F16", Level::kEager, false, DType::kF16},
      {"fused F16", Level::kFused, false, DType::kF16},  // the defaults
  };
  return all;
}

struct Decoded {
  std::vector<Ids> ids;                   // new ones, by sequence
  std::vector<std::vector<float>> cache;  // of prompt and new tokens but the last
};

bool operator==(const Decoded& a, const Decoded& b) { return a.ids == b.ids && a.cache == b.cache; }

struct DecodeOptions {
  DType kv_dtype = DType::kF32;
  SampleParams sampling = {};
  int n = 24;         // tokens of each sequence
  bool ahead = true;  // as many steps queued as the backend likes, or each waited for
};

// All prompts in one ragged step, then decode steps of all sequences together, as generate() does
// for one.
Decoded decode(const TinyModel& tiny, Backend& backend, const std::vector<Ids>& prompts,
               const DecodeOptions& options) {
  const PlacedModel placed(tiny, backend);
  const auto n_seqs = static_cast<std::int64_t>(prompts.size());
  Session session(*placed.model, backend,
                  {.ctx = 150,
                   .n_seqs = n_seqs,
                   .max_step_tokens = 400,
                   .max_step_rows = n_seqs,
                   .kv_dtype = options.kv_dtype,
                   .poison = true});
  std::vector<TokenInput> tokens;
  for (std::int32_t s = 0; s < n_seqs; ++s) {
    session.set_sampling(s, options.sampling);
    session.set_seen(s, prompts[s]);
    for (std::size_t i = 0; i < prompts[s].size(); ++i) {
      tokens.push_back(
          {prompts[s][i], static_cast<std::int32_t>(i), s, i + 1 == prompts[s].size()});
    }
  }
  session.step(tokens);
  session.queue_sample();
  Decoded out{std::vector<Ids>(prompts.size()), {}};
  int n_left = options.n - 1;
  const int depth = options.ahead ? backend.queue_depth() : 0;
  for (int i = 0; i < options.n; ++i) {
    while (n_left > 0 && session.n_queued() <= depth) {
      session.queue_decode();
      --n_left;
    }
    const std::vector<std::int32_t> ids = session.take();
    for (std::size_t s = 0; s < prompts.size(); ++s) out.ids[s].push_back(ids[s]);
  }
  for (std::int32_t s = 0; s < n_seqs; ++s) {
    out.cache.push_back(
        cached(session, s, static_cast<std::int64_t>(prompts[s].size()) + options.n - 1));
  }
  return out;
}

class CudaModelTest : public ::testing::TestWithParam<TinyModel> {
 protected:
  static void TearDownTestSuite() { backends_.clear(); }

  void SetUp() override {
    const std::string why = why_skipped(device_kind());
    if (!why.empty()) GTEST_SKIP() << why;
  }

  // Made once: a CUDA context takes long.
  static Backend& backend(Level level, bool exact) {
    std::unique_ptr<Backend>& made = backends_[{level, exact}];
    if (made == nullptr) {
      made = make_backend(device_kind(), {.exact = exact, .cuda = {.level = level}});
    }
    return *made;
  }
  static Backend& backend(const Setting& s) { return backend(s.level, s.exact); }

  static RunResult run(Backend& on, const Feed& feed) { return testing::run(GetParam(), on, feed); }

  // Fed in that way, no level is farther from the reference than the contracts of the backend allow
  // (the levels have the same ones).
  static void expect_correct(Feed feed) {
    ReferenceBackend reference;
    for (const bool exact : {true, false}) {
      feed.kv_dtype = exact ? DType::kF32 : DType::kF16;
      const RunResult want = run(reference, feed);
      const std::vector<Drift> drift =
          allowed_drift(GetParam(), backend(Level::kEager, exact), feed);
      for (const Setting& setting : settings()) {
        if (setting.exact != exact) continue;
        SCOPED_TRACE(setting.name);
        const RunResult got = run(backend(setting), feed);
        for (std::size_t s = 0; s < feed.texts.size(); ++s) {
          const double logits = distance(got.logits[s], want.logits[s]);
          const double cache = distance(got.cache[s], want.cache[s]);
          EXPECT_LE(logits, drift[s].logits) << "logits of sequence " << s;
          EXPECT_LE(cache, drift[s].cache) << "cache of sequence " << s;
          std::printf("  %s, sequence %zu: logits off by %.2e, allowed %.2e; cache %.2e, %.2e\n",
                      setting.name.c_str(), s, logits, drift[s].logits, cache, drift[s].cache);
        }
      }
    }
  }

  // Greedy answers to `prompt` are equal, or part where the reference's logits of the two tokens
  // are closer than two correct runs may be.
  static void expect_same_up_to_ties(const Ids& prompt, const Ids& got, const Ids& want,
                                     const Setting& setting) {
    ASSERT_EQ(got.size(), want.size());
    std::size_t i = 0;
    while (i < want.size() && got[i] == want[i]) ++i;
    if (i == want.size()) return;
    Ids prefix = prompt;
    prefix.insert(prefix.end(), want.begin(), want.begin() + static_cast<std::ptrdiff_t>(i));
    const Feed feed{.texts = {prefix}, .kv_dtype = setting.kv_dtype};
    ReferenceBackend reference;
    const std::vector<float> logits = run(reference, feed).logits[0];
    const double margin = std::abs(double{logits[got[i]]} - logits[want[i]]);
    const double allowed = 2 * allowed_drift(GetParam(), backend(setting), feed)[0].logits;
    EXPECT_LE(margin, allowed) << "token " << i << " is " << got[i] << ", expected " << want[i];
    std::printf("  a tie at token %zu: margin %.2e, allowed %.2e\n", i, margin, allowed);
  }

 private:
  static inline std::map<std::pair<Level, bool>, std::unique_ptr<Backend>> backends_;
};

TEST_P(CudaModelTest, PrefillAndPrefillPlusDecodeAreCorrect) {
  const Ids ids = random_text(41, 1);
  expect_correct({.texts = {ids}});
  expect_correct({.texts = {ids}, .cuts = {5, 1, 1, 20, 13, 1}});
}

TEST_P(CudaModelTest, RaggedBatchIsCorrectForEachSequence) {
  const std::vector<Ids> texts = {random_text(5, 2), random_text(67, 3), random_text(18, 4),
                                  random_text(33, 5)};
  expect_correct({.texts = texts, .cuts = {3, 9, 1}});
  expect_correct({.texts = {texts[0]}});  // alone: fewer tokens, and other kernels
  expect_correct({.texts = {texts[1]}});
}

TEST_P(CudaModelTest, TwoRunsHaveTheSameBits) {
  const std::vector<Ids> texts = {random_text(50, 6), random_text(7, 7)};
  for (const Setting& setting : settings()) {
    SCOPED_TRACE(setting.name);
    const Feed feed{.texts = texts, .cuts = {40, 1, 1}, .kv_dtype = setting.kv_dtype};
    const RunResult one = run(backend(setting), feed);
    const RunResult two = run(backend(setting), feed);
    EXPECT_EQ(one.logits, two.logits);
    EXPECT_EQ(one.cache, two.cache);
  }
}

TEST_P(CudaModelTest, PoisonedCacheChangesNoBit) {
  for (const Setting& setting : settings()) {
    SCOPED_TRACE(setting.name);
    Feed feed{.texts = {random_text(70, 8), random_text(3, 9)},
              .cuts = {20, 1},
              .kv_dtype = setting.kv_dtype};
    const RunResult poisoned = run(backend(setting), feed);
    feed.poison = false;
    EXPECT_EQ(poisoned.logits, run(backend(setting), feed).logits);
  }
}

TEST_P(CudaModelTest, LaterTokensDoNotReachEarlierOutputs) {
  const std::size_t changed = 23;
  const Ids ids = random_text(40, 5);
  Ids other = ids;
  other[changed] = (other[changed] + 1) % 250;
  for (const Setting& setting : settings()) {
    SCOPED_TRACE(setting.name);
    const PlacedModel placed(GetParam(), backend(setting));
    std::vector<std::vector<float>> logits, cache;
    for (const Ids& input : {ids, other}) {
      Session session(
          *placed.model, backend(setting),
          {.ctx = 64, .max_step_tokens = 64, .max_step_rows = 64, .kv_dtype = setting.kv_dtype});
      std::vector<TokenInput> tokens;
      for (std::size_t i = 0; i < input.size(); ++i) {
        tokens.push_back({input[i], static_cast<std::int32_t>(i), 0, true});
      }
      logits.push_back(read_floats(backend(setting), session.step(tokens)));
      cache.push_back(cached(session, 0, changed));
    }
    const std::size_t n = logits[0].size() / ids.size();
    EXPECT_EQ(std::memcmp(logits[0].data(), logits[1].data(), changed * n * sizeof(float)), 0);
    EXPECT_EQ(cache[0], cache[1]);
    EXPECT_NE(std::memcmp(logits[0].data() + changed * n, logits[1].data() + changed * n,
                          n * sizeof(float)),
              0)
        << "the changed token must change its own output";
  }
}

// One sequence, a few (the weights' own blocks are read), and more (cuBLAS); greedy and drawn.
TEST_P(CudaModelTest, EagerAndGraphHaveTheSameBits) {
  std::vector<Ids> prompts;
  for (const std::size_t n_seqs : {1, 3, 9}) {
    while (prompts.size() < n_seqs) {
      prompts.push_back(random_text(3 + 7 * prompts.size(), 20 + prompts.size()));
    }
    for (const bool exact : {false, true}) {
      for (const float temp : {0.0f, 0.8f}) {
        SCOPED_TRACE(std::to_string(n_seqs) + (exact ? " exact" : "") + (temp > 0 ? " drawn" : ""));
        DecodeOptions options{
            .kv_dtype = exact ? DType::kF32 : DType::kF16,
            .sampling = {.temp = temp, .top_k = 40, .repeat_penalty = 1.1f, .seed_low = 3}};
        const Decoded eager = decode(GetParam(), backend(Level::kEager, exact), prompts, options);
        const Decoded graph = decode(GetParam(), backend(Level::kGraph, exact), prompts, options);
        EXPECT_EQ(eager.ids, graph.ids);
        EXPECT_EQ(eager.cache, graph.cache);
        options.ahead = false;
        EXPECT_TRUE(decode(GetParam(), backend(Level::kGraph, exact), prompts, options) == graph)
            << "steps queued ahead give something else than steps waited for";
        // A second run, captured anew; and the shipped level.
        options.ahead = true;
        EXPECT_TRUE(decode(GetParam(), backend(Level::kFused, exact), prompts, options) ==
                    decode(GetParam(), backend(Level::kFused, exact), prompts, options))
            << "two fused runs differ";
      }
    }
  }
}

TEST_P(CudaModelTest, FusedChoosesTheTokensOfEager) {
  const std::vector<Ids> prompts = {random_text(12, 30), random_text(70, 31)};
  for (const Setting& setting : settings()) {
    if (setting.level != Level::kFused) continue;
    SCOPED_TRACE(setting.name);
    const DecodeOptions options{.kv_dtype = setting.kv_dtype};
    const Decoded eager =
        decode(GetParam(), backend(Level::kEager, setting.exact), prompts, options);
    const Decoded fused = decode(GetParam(), backend(setting), prompts, options);
    for (std::size_t s = 0; s < prompts.size(); ++s) {
      expect_same_up_to_ties(prompts[s], fused.ids[s], eager.ids[s], setting);
    }
  }
}

TEST_P(CudaModelTest, FourSequencesTogetherChooseWhatEachChoosesAlone) {
  std::vector<Ids> prompts;
  for (std::uint64_t s = 0; s < 4; ++s) prompts.push_back(random_text(4 + 19 * s, 40 + s));
  for (const Setting& setting : settings()) {
    SCOPED_TRACE(setting.name);
    const DecodeOptions options{.kv_dtype = setting.kv_dtype};
    const Decoded together = decode(GetParam(), backend(setting), prompts, options);
    for (std::size_t s = 0; s < prompts.size(); ++s) {
      const Decoded alone = decode(GetParam(), backend(setting), {prompts[s]}, options);
      expect_same_up_to_ties(prompts[s], together.ids[s], alone.ids[0], setting);
    }
  }
}

TEST_P(CudaModelTest, GenerateGivesTheIdsOfTheCpu) {
  const Ids prompt = random_text(20, 50);
  const GenerateOptions options{.max_tokens = 40};
  const auto go_on = [](std::int32_t) { return Verdict::kContinue; };
  const auto cpu = make_backend("cpu", {.exact = true});
  for (const Setting& setting : settings()) {
    SCOPED_TRACE(setting.name);
    std::vector<Ids> answers;
    for (Backend* on : {cpu.get(), &backend(setting)}) {
      const PlacedModel placed(GetParam(), *on);
      Session session(*placed.model, *on, {.ctx = 128, .kv_dtype = setting.kv_dtype});
      const Generation answer = generate(session, 0, prompt, 0, options, go_on);
      EXPECT_EQ(answer.stop, StopReason::kLength);
      answers.push_back(answer.ids);
      // The same session again, and one that is left with steps on their way.
      EXPECT_EQ(generate(session, 0, prompt, 0, options, go_on).ids, answer.ids);
      const GenerateOptions ended{.stop_ids = {answer.ids[4]}};
      const Generation early = generate(session, 0, prompt, 0, ended, go_on);
      EXPECT_EQ(early.stop, StopReason::kEos);
      EXPECT_EQ(early.ids.size(), std::find(answer.ids.begin(), answer.ids.end(), answer.ids[4]) -
                                      answer.ids.begin() + std::size_t{1});
      EXPECT_EQ(generate(session, 0, prompt, 0, options, go_on).ids, answer.ids);
    }
    expect_same_up_to_ties(prompt, answers[1], answers[0], setting);
  }
}

// Reads what every op made, as trace and profile do.
class ReadingObserver : public Observer {
 public:
  explicit ReadingObserver(Backend& backend) : backend_(backend) {}
  void after(const Op& op, const Tap&) override {
    Op copy = op;
    const Tensor out = *operands(copy).front().tensor;
    std::vector<std::byte> bytes(out.bytes());
    backend_.read(bytes.data(), out);
    ++n_ops;
  }
  int n_ops = 0;

 private:
  Backend& backend_;
};

TEST_P(CudaModelTest, SyncAndObserverChangeNoBit) {
  const std::vector<Ids> prompts = {random_text(11, 60)};
  const DecodeOptions options{.kv_dtype = DType::kF16};
  const Decoded want = decode(GetParam(), backend(Level::kEager, false), prompts, options);
  const auto sync = make_backend(device_kind(), {.cuda = {.level = Level::kEager, .sync = true}});
  EXPECT_TRUE(decode(GetParam(), *sync, prompts, options) == want);
  for (const Level level : {Level::kGraph, Level::kFused}) {
    ReadingObserver observer(backend(level, false));
    const ObservingScope observing(backend(level, false), &observer);
    EXPECT_TRUE(decode(GetParam(), backend(level, false), prompts, options) == want)
        << "watched, a backend runs op by op";
    EXPECT_GT(observer.n_ops, 24 * 20);
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, CudaModelTest, ::testing::ValuesIn(tiny_models()),
                         [](const auto& test) { return test.param.name; });

TEST(CudaBackend, WithoutADeviceSaysWhyAndNeverFallsBack) {
  const Device cuda = devices().front();
  ASSERT_EQ(cuda.kind, "cuda");
  if (cuda.usable) {
    EXPECT_EQ(make_backend("cuda", {})->name(), "cuda");
    return;
  }
  EXPECT_NE(cuda.why_not, "");
  const ErrorInfo error = error_of([] { make_backend("cuda", {}); });
  EXPECT_EQ(error.exit, Exit::kModel);
  EXPECT_EQ(error.code, "no_cuda");
  EXPECT_EQ(error.message, "--device cuda: " + cuda.why_not);
  EXPECT_NE(error.hint, "");
}

}  // namespace
}  // namespace qwen::testing
