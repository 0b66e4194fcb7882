// Small random models against an outside float64 forward pass (tests/golden/README.md,
// tiny_model.json). Needs no model file.
#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>
#include <tuple>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"
#include "core/blocks.h"
#include "tests/fixtures/tiny_model.h"
#include "tests/real_model.h"

namespace qwen::testing {
namespace {

using nlohmann::json;

const json& goldens() {
  static const json all = [] {
    std::ifstream in(std::string(QWEN_GOLDEN_DIR) + "/tiny_model.json");
    return json::parse(in);
  }();
  return all;
}

fixtures::TinyModelSpec spec_of(const json& golden) {
  const json& spec = golden.at("spec");
  const auto rows = dtype_table();
  const auto row = std::find_if(rows.begin(), rows.end(), [&](const DTypeInfo& candidate) {
    return candidate.name == spec.at("dtype").get<std::string>();
  });
  if (row == rows.end()) throw std::runtime_error("unknown type in tiny_model.json");
  return {.dtype = row->dtype,
          .n_layers = spec.at("layers"),
          .n_heads = spec.at("heads"),
          .n_kv_heads = spec.at("kv_heads"),
          .head_dim = spec.at("head_dim"),
          .dim = spec.at("dim"),
          .ffn_dim = spec.at("ffn"),
          .tied = spec.at("tied"),
          .seed = spec.at("seed")};
}

// Keeps the last row of the output of every op of a layer, under "L01.rope_q".
class LastRows : public Observer {
 public:
  explicit LastRows(Backend& backend) : backend_(backend) {}

  void after(const Op& op, const Tap& tap) override {
    if (std::holds_alternative<KvWrite>(op) || tap.layer < 0) return;
    Op copy = op;
    const Tensor out = *operands(copy).front().tensor;
    std::vector<float> all(out.size());
    backend_.read(all.data(), out);
    const std::string key =
        (tap.layer < 10 ? "L0" : "L") + std::to_string(tap.layer) + "." + std::string(tap.name);
    values[key].assign(all.end() - out.size() / out.shape[0], all.end());
  }

  std::map<std::string, std::vector<float>> values;

 private:
  Backend& backend_;
};

// Every value within 1e-4 of the largest one or, where that is more, within three times `noise`,
// the distance of the farthest of eight correct float32 runs. Not-a-number is within nothing.
void expect_near(const std::vector<float>& got, const std::vector<double>& want, double noise,
                 const std::string& name) {
  ASSERT_FALSE(want.empty()) << name;
  ASSERT_GE(got.size(), want.size()) << name;
  double largest = 0;
  for (const double value : want) largest = std::max(largest, std::abs(value));
  const double bound = std::max(1e-4 * largest, 3 * noise);
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double error = std::abs(double{got[i]} - want[i]);
    if (!(error <= bound)) {
      ADD_FAILURE() << name << "[" << i << "] is " << got[i] << ", expected " << want[i] << " +- "
                    << bound;
      return;
    }
  }
}

using GoldenParam = std::tuple<const char*, const char*>;  // name in tiny_model.json, device

class TinyGolden : public ::testing::TestWithParam<GoldenParam> {
 protected:
  static std::unique_ptr<Backend> backend() {
    if (std::get<1>(GetParam()) == std::string("ref")) return std::make_unique<ReferenceBackend>();
    return std::make_unique<CpuBackend>(1, "");
  }

  // The last logits of all `ids` in one step through the first n_layers layers (-1: all).
  static std::vector<float> last_logits(const Model& model, Backend& backend,
                                        const std::vector<std::int32_t>& ids,
                                        std::int64_t n_layers) {
    Session session(model, backend, {.ctx = 64, .max_step_tokens = 64, .n_layers = n_layers});
    const Tensor tensor = session.prefill(0, ids);
    std::vector<float> logits(tensor.size());
    backend.read(logits.data(), tensor);
    return logits;
  }
};

TEST_P(TinyGolden, ForwardPassMatchesTheEquations) {
  const json& golden = goldens().at(std::get<0>(GetParam()));
  const std::vector<std::int32_t> ids = goldens().at("ids");
  const auto on = backend();
  GgufModelFile file(
      Gguf::parse(from_memory(fixtures::tiny_model(spec_of(golden)).bytes(), "tiny")));
  const auto model = load_model(file, *on);

  LastRows taps(*on);
  on->observe(&taps);
  const std::vector<float> logits = last_logits(*model, *on, ids, -1);
  on->observe(nullptr);
  taps.values["logits"] = logits;
  // Straight from the embedding, whose values are so small that the last norm's eps counts.
  taps.values["logits_of_no_layer"] = last_logits(*model, *on, ids, 0);

  const auto n_vocab = static_cast<std::size_t>(model->shape().n_vocab);
  const json& arrays = golden.at("arrays");
  EXPECT_EQ(arrays.size(), 2 * 4 + 2u);
  for (const auto& [name, want] : arrays.items()) {
    ASSERT_TRUE(taps.values.contains(name)) << name;
    EXPECT_EQ(want.size(), name.starts_with("logits") ? n_vocab : 64) << name;
    expect_near(taps.values[name], want, golden.at("noise").at(name), name);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TinyGolden,
                         ::testing::Combine(::testing::Values("F32Tied", "Q8_0Untied"),
                                            ::testing::Values("ref", "cpu")),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param)) + "_" +
                                  std::get<1>(test.param);
                         });

}  // namespace
}  // namespace qwen::testing
