// The real model against an outside reference (tests/golden/README.md): intermediate values, logits
// of given texts, greedy answers.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

#include "core/crosscheck/npy.h"
#include "core/generate.h"
#include "tests/real_model.h"
#include "tests/usable_device.h"

namespace qwen::testing {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

// How the model is run: with the shipped defaults, or "exact", with FP32 operands and an FP32
// cache.
struct Way {
  const char* name;
  std::string_view device;
  bool exact = true;
  double worst = 1e-3;           // of log-probabilities and logits; 0: only the mean is bounded
  double greedy_margin = 0.005;  // a greedy answer may leave where the margin is below this
};

constexpr Way kRef{.name = "ref", .device = "ref", .worst = 5e-4};
constexpr Way kCpuExact{.name = "cpu_exact", .device = "cpu"};
constexpr Way kCpu{
    .name = "cpu", .device = "cpu", .exact = false, .worst = 0, .greedy_margin = 0.5};
constexpr Way kCudaExact{.name = "cuda_exact", .device = "cuda", .greedy_margin = 0.01};
constexpr Way kCuda{
    .name = "cuda", .device = "cuda", .exact = false, .worst = 0, .greedy_margin = 0.25};

void PrintTo(const Way& way, std::ostream* out) { *out << way.name; }

class RealModel : public ::testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (real_model_path() == nullptr) GTEST_SKIP() << "QWEN_REAL_MODEL is not set";
    const std::string why = why_skipped(GetParam().device);
    if (!why.empty()) GTEST_SKIP() << why;
    const BackendOptions options{.exact = GetParam().exact};
    loaded_ =
        std::make_unique<LoadedModel>(open_file(real_model_path()), GetParam().device, options);
  }

  SessionOptions session_options(std::int64_t ctx, std::int64_t step_tokens) const {
    return {
        .ctx = ctx,
        .max_step_tokens = step_tokens,
        .max_step_rows = step_tokens,
        .kv_dtype = GetParam().device == "cuda" && !GetParam().exact ? DType::kF16 : DType::kF32};
  }

  std::unique_ptr<LoadedModel> loaded_;
};

// Keeps the largest, and not-a-number for good.
void grow(double& worst, double error) {
  if (!(error <= worst)) worst = error;
}

double log_sum_exp(const float* logits, std::int64_t n) {
  const double max = *std::max_element(logits, logits + n);
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += std::exp(logits[i] - max);
  return max + std::log(sum);
}

// Copies the output of every op, under "L03.q_proj" or "embed".
class Taps : public Observer {
 public:
  explicit Taps(Backend& backend) : backend_(backend) {}

  void after(const Op& op, const Tap& tap) override {
    if (std::holds_alternative<KvWrite>(op)) return;
    std::string key(tap.name);
    if (tap.layer >= 0) key = (tap.layer < 10 ? "L0" : "L") + std::to_string(tap.layer) + "." + key;
    Op copy = op;
    const Tensor out = *operands(copy).front().tensor;
    values[key].resize(out.size());
    backend_.read(values[key].data(), out);
  }

  std::map<std::string, std::vector<float>> values;

 private:
  Backend& backend_;
};

// max |got - want| as a share of max |want|.
double relative_error(const std::vector<float>& got, const std::vector<float>& want) {
  double error = 0;
  double largest = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (const double e = std::abs(double{got[i]} - want[i]); !(e <= error)) error = e;
    largest = std::max(largest, std::abs(double{want[i]}));
  }
  return error / largest;
}

// Sanitizers slow a step down by a factor of ten and more: there a few texts stand for all.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// Without operands that are rounded.
class ExactRealModel : public RealModel {};

TEST_P(ExactRealModel, TapsMatchTheReference) {
  const std::string dir = golden_dir() + "/taps";
  std::ifstream in(dir + "/ids.json");
  const std::vector<std::int32_t> ids = json::parse(in)["ids"];
  Session session(*loaded_->model, *loaded_->backend, session_options(64, 12));
  Taps taps(*loaded_->backend);
  std::vector<TokenInput> tokens;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    tokens.push_back({ids[i], static_cast<std::int32_t>(i), 0, true});
  }
  loaded_->backend->observe(&taps);
  session.step(tokens);
  loaded_->backend->observe(nullptr);
  auto& logits = taps.values["logits"];
  logits.erase(logits.begin(), logits.end() - loaded_->model->shape().n_vocab);

  int compared = 0;
  for (const auto& file : std::filesystem::directory_iterator(dir)) {
    const std::string name = file.path().stem();
    if (file.path().extension() != ".npy" || name.ends_with("attn_scores") ||
        name.ends_with("attn_probs")) {
      continue;  // scores and probabilities exist inside an op only
    }
    ASSERT_TRUE(taps.values.contains(name)) << name;
    const crosscheck::NpyArray array = crosscheck::read_npy(file.path());
    ASSERT_EQ(array.type, crosscheck::NpyType::kF4) << name;
    std::vector<float> want(static_cast<std::size_t>(array.size()));
    std::memcpy(want.data(), array.bytes.data(), array.bytes.size());
    ASSERT_EQ(taps.values[name].size(), want.size()) << name;
    EXPECT_LE(relative_error(taps.values[name], want), 1e-4) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 115);
}

TEST_P(RealModel, LogProbabilitiesMatchTheReference) {
  const bool ref = GetParam().device == "ref";
  std::vector<json> texts = golden_lines("logits.jsonl");
  ASSERT_EQ(texts.size(), 8u);
  std::sort(texts.begin(), texts.end(),
            [](const json& a, const json& b) { return a["ids"].size() < b["ids"].size(); });
  if (ref || kSanitized) texts.resize(2);  // the scalar reference takes about a second per token
  if (ref && kSanitized) texts.resize(1);

  constexpr std::int64_t kRows = 64;
  Session session(*loaded_->model, *loaded_->backend, session_options(1024, kRows));
  const std::int64_t n_vocab = loaded_->model->shape().n_vocab;
  std::vector<float> rows;
  double worst = 0;
  double sum = 0;  // of |difference| of the text's own tokens
  std::int64_t n_scored = 0;
  std::int64_t n_agree = 0;
  for (const json& text : texts) {
    const std::vector<std::int32_t> ids = text["ids"];
    session.reset(0);
    const float* last = nullptr;
    for (std::size_t first = 0; first < ids.size(); first += kRows) {
      std::vector<TokenInput> tokens;
      for (std::size_t i = first; i < std::min(ids.size(), first + kRows); ++i) {
        tokens.push_back({ids[i], static_cast<std::int32_t>(i), 0, true});
      }
      const Tensor logits = session.step(tokens);
      rows.resize(logits.size());
      loaded_->backend->read(rows.data(), logits);
      for (std::size_t r = 0; r < tokens.size(); ++r) {
        last = rows.data() + static_cast<std::int64_t>(r) * n_vocab;
        const std::size_t next = first + r + 1;
        if (next == ids.size()) continue;
        const double norm = log_sum_exp(last, n_vocab);
        const double off = std::abs(last[ids[next]] - norm - text["logprob"][next].get<double>());
        grow(worst, off);
        sum += off;
        ++n_scored;
        const std::int64_t best = std::max_element(last, last + n_vocab) - last;
        if (best == text["top"][next][0][0].get<std::int64_t>()) ++n_agree;
        for (const json& top : text["top"][next]) {
          grow(worst, std::abs(last[top[0].get<int>()] - norm - top[1].get<double>()));
        }
      }
    }
    const json& end = text["logits_last"];
    for (std::size_t i = 0; i < 16; ++i) {
      grow(worst, std::abs(last[i] - end["first16"][i].get<double>()));
    }
    for (std::size_t i = 0; i < end["at"].size(); ++i) {
      grow(worst, std::abs(last[end["at"][i].get<int>()] - end["values"][i].get<double>()));
    }
    EXPECT_EQ(std::max_element(last, last + n_vocab) - last, end["argmax"].get<std::int64_t>());
  }
  const double mean = sum / static_cast<double>(n_scored);
  const double agree = static_cast<double>(n_agree) / static_cast<double>(n_scored);
  RecordProperty("worst_difference", std::to_string(worst));
  std::printf(
      "%s: max |difference| %.2e over %zu texts; of %lld tokens mean |d logprob| %.2e, the "
      "likeliest "
      "token agrees for %lld (%.2f %%)\n",
      GetParam().name, worst, texts.size(), static_cast<long long>(n_scored), mean,
      static_cast<long long>(n_agree), 100 * agree);
  if (GetParam().worst > 0) {
    EXPECT_LE(worst, GetParam().worst);
  }
  EXPECT_LE(mean, 0.02);
  EXPECT_GE(agree, 0.99);
}

// The scalar reference would take minutes.
class FastRealModel : public RealModel {};

TEST_P(FastRealModel, GreedyAnswersMatchTheReference) {
  SessionOptions options = session_options(1024, 512);
  options.max_step_rows = 1;
  Session session(*loaded_->model, *loaded_->backend, options);
  std::int64_t steps = 0;
  std::int64_t asked = 0;
  double widest = 0;  // margin where an answer left
  std::vector<json> answers = golden_lines("greedy.jsonl");
  ASSERT_EQ(answers.size(), 20u);
  if (kSanitized) answers.resize(2);
  for (const json& golden : answers) {
    const std::vector<std::int32_t> prompt = golden["prompt_ids"];
    const std::vector<std::int32_t> want = golden["ids"];
    session.reset(0);
    const Ids got =
        generate(session, 0, prompt, 0, {.max_tokens = static_cast<std::int64_t>(want.size())},
                 [](std::int32_t) { return Verdict::kContinue; })
            .ids;
    ASSERT_EQ(got.size(), want.size());
    asked += static_cast<std::int64_t>(want.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
      if (got[i] != want[i]) {
        const auto margin = golden["margins"][i].get<double>();
        widest = std::max(widest, margin);
        EXPECT_LT(margin, GetParam().greedy_margin)
            << golden["prompt_text"] << " step " << i << ": token " << got[i] << ", expected "
            << want[i];
        break;
      }
      ++steps;
    }
  }
  std::printf("%s: %lld of %lld greedy tokens equal, the widest margin where one leaves: %.4f\n",
              GetParam().name, static_cast<long long>(steps), static_cast<long long>(asked),
              widest);
}

std::string way_name(const ::testing::TestParamInfo<Way>& test) { return test.param.name; }
INSTANTIATE_TEST_SUITE_P(Devices, ExactRealModel, ::testing::Values(kRef, kCpuExact, kCudaExact),
                         way_name);
INSTANTIATE_TEST_SUITE_P(Devices, RealModel,
                         ::testing::Values(kRef, kCpuExact, kCpu, kCudaExact, kCuda), way_name);
INSTANTIATE_TEST_SUITE_P(Devices, FastRealModel,
                         ::testing::Values(kCpuExact, kCpu, kCudaExact, kCuda), way_name);

}  // namespace
}  // namespace qwen::testing
