// The real model against an outside reference (tests/golden/README.md): intermediate values, logits
// of given texts, greedy answers.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "tests/npy.h"
#include "tests/real_model.h"

namespace qwen::testing {
namespace {

using nlohmann::json;

class RealModel : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (real_model_path() == nullptr) GTEST_SKIP() << "QWEN_REAL_MODEL is not set";
    loaded_ = std::make_unique<LoadedModel>(open_file(real_model_path()), GetParam());
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

TEST_P(RealModel, TapsMatchTheReference) {
  const std::string dir = std::string(QWEN_GOLDEN_DIR) + "/taps";
  std::ifstream in(dir + "/ids.json");
  const std::vector<std::int32_t> ids = json::parse(in)["ids"];
  Session session(*loaded_->model, *loaded_->backend,
                  {.ctx = 64, .max_step_tokens = 12, .max_step_rows = 12});
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
    const std::vector<float> want = read_npy(file.path());
    ASSERT_EQ(taps.values[name].size(), want.size()) << name;
    EXPECT_LE(relative_error(taps.values[name], want), 1e-4) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 115);
}

TEST_P(RealModel, LogProbabilitiesMatchTheReference) {
  const bool ref = GetParam() == std::string("ref");
  std::vector<json> texts = golden_lines("logits.jsonl");
  ASSERT_EQ(texts.size(), 8u);
  std::sort(texts.begin(), texts.end(),
            [](const json& a, const json& b) { return a["ids"].size() < b["ids"].size(); });
  if (ref) texts.resize(2);  // the scalar reference takes about a second per token
  const double tolerance = ref ? 5e-4 : 1e-3;

  constexpr std::int64_t kRows = 64;
  Session session(*loaded_->model, *loaded_->backend,
                  {.ctx = 1024, .max_step_tokens = kRows, .max_step_rows = kRows});
  const std::int64_t n_vocab = loaded_->model->shape().n_vocab;
  double worst = 0;
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
      for (std::size_t r = 0; r < tokens.size(); ++r) {
        last = logits.f32() + static_cast<std::int64_t>(r) * n_vocab;
        const std::size_t next = first + r + 1;
        if (next == ids.size()) continue;
        const double norm = log_sum_exp(last, n_vocab);
        grow(worst, std::abs(last[ids[next]] - norm - text["logprob"][next].get<double>()));
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
  RecordProperty("worst_difference", std::to_string(worst));
  std::printf("%s: max |difference| %.2e over %zu texts\n", GetParam(), worst, texts.size());
  EXPECT_LE(worst, tolerance);
}

// The scalar reference would take minutes.
class FastRealModel : public RealModel {};

TEST_P(FastRealModel, GreedyAnswersMatchTheReference) {
  Session session(*loaded_->model, *loaded_->backend, {.ctx = 1024});
  std::int64_t steps = 0;
  for (const json& golden : golden_lines("greedy.jsonl")) {
    const std::vector<std::int32_t> prompt = golden["prompt_ids"];
    const std::vector<std::int32_t> want = golden["ids"];
    session.reset(0);
    session.set_sampling(0, {});
    session.prefill(0, prompt);
    auto pos = static_cast<std::int32_t>(prompt.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
      const std::int32_t got = session.sample()[0];
      if (got != want[i]) {
        EXPECT_LT(golden["margins"][i].get<double>(), 0.005)
            << golden["prompt_text"] << " step " << i;
        break;
      }
      ++steps;
      const TokenInput next{got, pos++, 0, true};
      session.step({&next, 1});
    }
  }
  std::printf("%s: %lld greedy tokens equal\n", GetParam(), static_cast<long long>(steps));
}

std::string device_name(const ::testing::TestParamInfo<const char*>& test) { return test.param; }
INSTANTIATE_TEST_SUITE_P(Devices, RealModel, ::testing::Values("ref", "cpu"), device_name);
INSTANTIATE_TEST_SUITE_P(Devices, FastRealModel, ::testing::Values("cpu"), device_name);

}  // namespace
}  // namespace qwen::testing
