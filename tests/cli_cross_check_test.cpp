// cross-check's report page, its details, and the comparison with outside arrays.
#include <cmath>
#include <fstream>
#include <sstream>

#include "backends/cpu/reference/reference.h"
#include "core/crosscheck/npy.h"
#include "tests/cli_process.h"
#include "tests/model_runs.h"
#include "tests/real_model.h"

namespace qwen::testing {
namespace {

namespace fs = std::filesystem;

class CliCrossCheck : public CliTest {
 protected:
  static std::string contents(const std::string& file) {
    std::ostringstream text;
    text << std::ifstream(file).rdbuf();
    return text.str();
  }
};

TEST_F(CliCrossCheck, ThePageSaysWhatTheJsonSays) {
  const std::string file = path("report.html");
  const Args args = {"cross-check", "--device", "cpu", "-n", "1", "--ids", "1,2,3,4"};
  Args all = args;
  all.insert(all.end(), {"--json", "--detail", "--html", file});
  Json json = qwen(all).json();
  EXPECT_EQ(json["checks_detail"].size(), json["checks"]);
  json.erase("checks_detail");
  const std::string page = contents(file);
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const std::size_t begin = page.find(open) + open.size();
  Json data = Json::parse(page.substr(begin, page.find("</script>") - begin));
  EXPECT_EQ(data["heat"]["tokens"],
            (Json{{0, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 4}}));  // with the one that follows
  data.erase("heat");
  EXPECT_EQ(data, json);
  Args text = args;
  text.insert(text.end(), {"--html", file});
  const Result plain = qwen(text);
  EXPECT_EQ(plain.code, 0) << plain.err;
  EXPECT_NE(contents(file).find("<pre>" + plain.out + "</pre>"), std::string::npos);
}

TEST_F(CliCrossCheck, WhatHasNoMeaningIsRefused) {
  const auto refused = [&](Args more, const std::string& text) {
    more.insert(more.begin(), {"cross-check", "--device", "cpu"});
    expect_failure(qwen(more), 2, text, "hint: ");
  };
  refused({"--html", model()}, "is the model");
  refused({"--html", path("no/such/folder.html")}, "No such file");
  refused({"--html", path("x.html"), "--selftest"}, "--selftest has its own report");
  refused({"--detail"}, "--detail is for --json");
  refused({"--oracle", "cpu"}, "they would agree on any fault");
  refused({"-c", "2"}, "a context as long as its texts");
  refused({"--bundle", ""}, "not an empty text");
  refused({"--mode", "free", "--html", path("x.html")}, "--mode free judges no ops");
  refused({"--ids", "1,2", "--sequences", "3"}, "fewer tokens than there are --sequences");
  refused({"--against", path("x"), "-n", "3"}, "--against has its own text");
  refused({"--against", path("x"), "--html", path("x.html")}, "--against has its own text");
  refused({"--against", path("x"), "--layers", "1"}, "--against has its own text");
  EXPECT_TRUE(fs::file_size(model()) > 1000);
  EXPECT_FALSE(fs::exists(path("x.html")));
}

// Writes the values of a step's taps, as another implementation would.
class TapWriter : public Observer {
 public:
  TapWriter(ReferenceBackend& backend, fs::path folder)
      : backend_(backend), folder_(std::move(folder)) {}

  void after(const Op& op, const Tap& tap) override {
    if (std::holds_alternative<KvWrite>(op)) return;
    Op copy = op;
    const Tensor out = *operands(copy).front().tensor;
    const std::string layer = tap.layer < 0 ? "" : "L0" + std::to_string(tap.layer) + ".";
    const fs::path file = folder_ / (layer + std::string(tap.name) + ".npy");
    if (tap.name == "logits") {  // of the last token, as one row
      const Tensor last = out.slice(out.shape[0] - 1, out.shape[0]);
      crosscheck::write_npy(file.string(), crosscheck::to_npy(last.reshape({last.size()})));
    } else {
      crosscheck::write_npy(file.string(), crosscheck::to_npy(out));
    }
  }

 private:
  ReferenceBackend& backend_;
  fs::path folder_;
};

constexpr std::int64_t kTokens = 70;  // two steps

class CliAgainst : public CliCrossCheck {
 protected:
  void SetUp() override {
    folder_ = path("taps");
    fs::remove_all(folder_);
    fs::create_directory(folder_);
    const Ids ids = random_text(kTokens, 7);
    std::ofstream(folder_ / "ids.json") << Json{{"ids", ids}}.dump();
    ReferenceBackend backend;
    const PlacedModel placed({"tiny", {}}, backend);
    Session session(*placed.model, backend,
                    {.ctx = kTokens, .max_step_tokens = kTokens, .max_step_rows = kTokens});
    std::vector<TokenInput> tokens;
    for (const std::int32_t id : ids) {
      tokens.push_back({id, static_cast<std::int32_t>(tokens.size()), 0, true});
    }
    TapWriter writer(backend, folder_);
    const ObservingScope observing(backend, &writer);
    session.step(tokens);
  }

  std::string file(const std::string& name) const { return (folder_ / name).string(); }
  void add(const std::string& name, std::int64_t element, float value) const {
    crosscheck::NpyArray array = crosscheck::read_npy(file(name));
    auto* values = reinterpret_cast<float*>(array.bytes.data());
    values[element] += value;
    crosscheck::write_npy(file(name), array);
  }
  void rewrite(const std::string& name, const std::vector<std::int64_t>& shape) const {
    crosscheck::NpyArray array = crosscheck::read_npy(file(name));
    array.shape = shape;
    crosscheck::write_npy(file(name), array);
  }
  Result against(const Args& more = {}) const {
    Args args = {"cross-check", "--against", folder_.string()};
    args.insert(args.end(), more.begin(), more.end());
    return qwen(args);
  }
  void refused(const std::string& text, const std::string& hint) const {
    expect_failure(against({"--device", "cpu"}), 3, text, hint);
  }

  fs::path folder_;
};

TEST_F(CliAgainst, TheSameModelAgrees) {
  const Json json = against({"--device", "ref", "--json"}).json();
  EXPECT_EQ(json["verdict"], "agree");
  EXPECT_EQ(json["tokens"], kTokens);
  EXPECT_EQ(json["compared"].size(), 2u * 18 + 4);
  for (const Json& c : json["compared"]) EXPECT_EQ(c["error"], 0) << c;
  EXPECT_EQ(json["compared"].front()["name"], "embed");
  EXPECT_EQ(json["compared"].back()["name"], "logits");
  const Result text = against({"--device", "cpu"});
  EXPECT_EQ(text.code, 0) << text.out;
  EXPECT_TRUE(text.out.starts_with("PASS cpu against ")) << text.out;
  // Not all of it the same bits: the comparison is one.
  EXPECT_EQ(text.out.find("worst 0 of"), std::string::npos) << text.out;
}

TEST_F(CliAgainst, TheFirstDifferenceIsNamed) {
  const std::int64_t dim = 2 * 64;  // of the keys
  add("L01.gate.npy", 5, 1e3F);
  add("L01.rope_k.npy", 69 * dim + 64 + 5, 1e6F);
  add("L01.rope_k.npy", 66 * dim + 64 + 5, 1e4F);
  const Result text = against({"--device", "cpu"});
  EXPECT_EQ(text.code, 1);
  EXPECT_TRUE(text.out.starts_with("FAIL cpu against ")) << text.out;
  EXPECT_NE(text.out.find("2 of 40 arrays differ"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("first: L01.rope_k at token 66 (1, 5)"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("also L01.gate"), std::string::npos) << text.out;
  const Json json = against({"--device", "cpu", "--json"}).json();
  EXPECT_EQ(json["verdict"], "diverge");
  const Json& first = json["first_difference"];
  EXPECT_EQ(first["op"], "rope_k");
  EXPECT_EQ(first["layer"], 1);
  EXPECT_EQ(first["token"], 66);
  EXPECT_EQ(first["coords"], (Json{1, 5}));
  EXPECT_NEAR(first["outside"].get<double>() - first["got"].get<double>(), 1e4, 1);
  EXPECT_NEAR(first["relative"].get<double>(), 1, 1e-3);  // what was added is the largest value
}

TEST_F(CliAgainst, TheBoundIsAShareOfTheLargestValue) {
  const double largest =
      against({"--device", "ref", "--json"}).json()["compared"].back()["largest"];
  add("logits.npy", 3, static_cast<float>(0.9e-4 * largest));
  EXPECT_EQ(against({"--device", "ref"}).code, 0);
  add("logits.npy", 3, static_cast<float>(0.2e-4 * largest));
  EXPECT_EQ(against({"--device", "ref"}).code, 1);
}

TEST_F(CliAgainst, ATokensBoundIsNotAnothers) {
  const crosscheck::NpyArray array = crosscheck::read_npy(file("L01.swiglu.npy"));
  const auto* values = reinterpret_cast<const float*>(array.bytes.data());
  const std::int64_t n_cols = array.shape[1];
  std::vector<float> largest;  // of each token
  for (std::int64_t t = 0; t < array.shape[0]; ++t) {
    const auto [low, high] = std::minmax_element(values + t * n_cols, values + (t + 1) * n_cols);
    largest.push_back(std::max(-*low, *high));
  }
  const auto [least, most] = std::minmax_element(largest.begin(), largest.end());
  ASSERT_LT(*least, 0.8f * *most);
  add("L01.swiglu.npy", (least - largest.begin()) * n_cols + 3, 1.2e-4f * *least);
  EXPECT_EQ(against({"--device", "ref"}).code, 1);
}

TEST_F(CliAgainst, NotANumberDiffers) {
  add("embed.npy", 0, std::nanf(""));
  const Json json = against({"--device", "cpu", "--json"}).json();
  EXPECT_EQ(json["first_difference"]["name"], "embed");
  EXPECT_TRUE(json["first_difference"]["error"].is_null());
}

TEST_F(CliAgainst, ATokenOfNothingButNotANumberDiffers) {
  for (const float value : {std::nanf(""), 0.0f}) {
    crosscheck::NpyArray array = crosscheck::read_npy(file("L01.q_proj.npy"));
    auto* values = reinterpret_cast<float*>(array.bytes.data());
    std::fill_n(values, array.size() / array.shape[0], value);
    crosscheck::write_npy(file("L01.q_proj.npy"), array);
    const Json json = against({"--device", "cpu", "--json"}).json();
    EXPECT_EQ(json["verdict"], "diverge");
    EXPECT_EQ(json["first_difference"]["name"], "L01.q_proj");
  }
}

TEST_F(CliAgainst, AHalfCacheProvesNothing) {
  add("L01.resid2.npy", 0, 1e6F);
  const Result text = against({"--device", "cpu", "--kv", "f16"});
  EXPECT_EQ(text.code, 1);
  EXPECT_TRUE(text.out.starts_with("CANNOT TELL ")) << text.out;
  EXPECT_NE(text.out.find("--exact --kv f32"), std::string::npos) << text.out;
}

TEST_F(CliAgainst, AnArrayThatTheManifestNamesMustBeThere) {
  Json manifest = Json::parse(contents(file("ids.json")));
  manifest["names"] = {{"layer0_query", "L00.q_proj"}};
  std::ofstream(folder_ / "manifest.json") << manifest.dump();
  refused("has no layer0_query.npy", "is that of an array");
}

TEST_F(CliAgainst, OtherNamesAndSplitsOfARow) {
  fs::rename(file("L00.q_proj.npy"), file("layer0_query.npy"));
  rewrite("layer0_query.npy", {kTokens, 4, 64});
  fs::rename(file("embed.npy"), file("attn_mask.npy"));
  Json manifest = Json::parse(contents(file("ids.json")));
  manifest["names"] = {{"layer0_query", "L00.q_proj"}, {"attn_mask", nullptr}};
  std::ofstream(folder_ / "manifest.json") << manifest.dump();
  fs::copy(file("L00.up.npy"), file("L00.attn_scores.npy"));
  const Json json = against({"--device", "cpu", "--json"}).json();
  EXPECT_EQ(json["verdict"], "agree");
  EXPECT_EQ(json["compared"].size(), 39u);
  EXPECT_EQ(json["not_compared"], (Json{"L00.attn_scores", "attn_mask"}));
}

TEST_F(CliAgainst, FoldersThatCannotBeUsed) {
  const std::string manifest = contents(file("ids.json"));
  const auto with_manifest = [&](const std::string& text) {
    std::ofstream(folder_ / "ids.json") << text;
  };
  with_manifest("{");
  refused("is no JSON", "{\"ids\": [785");
  with_manifest(R"({"tokens": [1]})");
  refused("has no array 'ids'", "{\"ids\": [785");
  with_manifest(R"({"ids": [1, 574]})");
  refused("id 574 is not in the vocabulary of 574 tokens", "another model");
  with_manifest(R"({"ids": [1.5]})");
  refused("id 1.5 is not", "another model");
  with_manifest(R"({"ids": [1], "names": {"x": 3}})");
  refused("'names' is no object of names", "left_out");
  with_manifest(R"({"ids": [1, 2]})");
  refused("L00.attn_norm: 'attn_norm' of layer 0 has shape (2, 256) here, the array (70, 256)",
          "another model or text");
  with_manifest(manifest);
  rewrite("L01.rope_q.npy", {kTokens, 64, 4});
  refused("'rope_q' of layer 1 has shape (70, 4, 64) here, the array (70, 64, 4)", "floats in C");
  rewrite("L01.rope_q.npy", {kTokens, 4, 64});
  fs::copy(file("embed.npy"), file("L07.gate.npy"));
  refused("L07.gate: the model has no value 'gate' of layer 7", "\"names\"");
  fs::remove(file("L07.gate.npy"));
  fs::resize_file(file("L00.up.npy"), fs::file_size(file("L00.up.npy")) - 4);
  refused("L00.up.npy has ", "damaged");
  std::ofstream(folder_ / "L00.up.npy") << "no array";
  refused("L00.up.npy is too short", "damaged");
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
    if (entry.path().extension() == ".npy") fs::remove(entry.path());
  }
  refused("has no arrays to compare", "L03.q_proj.npy");
  fs::remove(file("ids.json"));
  refused("has no manifest.json or ids.json", "{\"ids\": [785");
  fs::remove(folder_);
  refused("has no manifest.json or ids.json", "{\"ids\": [785");
}

TEST_F(CliAgainst, TheRealModelAgreesWithAnotherImplementation) {
  if (real_model_path() == nullptr) GTEST_SKIP() << "QWEN_REAL_MODEL is not set";
  for (const char* device : {"ref", "cpu"}) {
    const Result result = run_program({"cross-check", real_model_path(), "--device", device,
                                       "--exact", "--against", golden_dir() + "/taps", "--json"});
    const Json json = result.json();
    EXPECT_EQ(json["verdict"], "agree") << json["first_difference"];
    EXPECT_EQ(json["compared"].size(), 115u);
    EXPECT_EQ(json["not_compared"].size(), 2u);
  }
}

}  // namespace
}  // namespace qwen::testing
