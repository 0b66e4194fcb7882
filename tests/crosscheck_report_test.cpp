// What a cross-check keeps of each check, and the page that is made of it.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <tuple>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"
#include "core/crosscheck/faults.h"
#include "loader/weights.h"
#include "tests/model_runs.h"
#include "tools/qwen/cross_check_detail.h"
#include "tools/qwen/cross_check_page.h"
#include "tools/qwen/divergence_text.h"

namespace qwen::cli {
namespace {

using namespace crosscheck;  // NOLINT(google-build-using-namespace)
using qwen::testing::random_text;
using Token = std::pair<std::int32_t, std::int64_t>;

constexpr std::int64_t kTokens = 11 + 4 + 7 + 3 * 2;  // of all sequences, with what follows

// A path that says of itself that it rounds its operands to 2^-4.
class Coarse : public ReferenceBackend {
 public:
  Contract contract(const Op&) const override { return {.input_unit = 0x1p-4}; }
};

OpenModel opener() {
  const fixtures::TinyModelSpec spec{
      .n_heads = 14, .n_kv_heads = 2, .head_dim = 64, .dim = 128, .ffn_dim = 208};
  return [bytes = fixtures::tiny_model(spec).bytes()]() -> std::unique_ptr<ModelFile> {
    return std::make_unique<GgufModelFile>(Gguf::parse(from_memory(bytes, "tiny")));
  };
}

CrossCheckOptions options(bool detail) {
  return {.texts = {random_text(11, 1), random_text(4, 2), random_text(7, 3)},
          .n_decode = 2,
          .chunk = 6,
          .detail = detail};
}

// With a fault of the catalogue, or without.
CrossCheckResult run(std::string_view id, bool detail = true) {
  CpuBackend path(1, "");
  ReferenceBackend reference;
  Fault fault;
  for (const Fault& known : fault_catalogue()) {
    if (known.id == id) fault = known;
  }
  return run_with_fault({path, reference, reference, reference}, opener(), options(detail), fault)
      .result;
}

std::vector<Check> checks_of(const ShadowResult& shadow, std::string_view tap, int layer,
                             std::string_view output) {
  std::vector<Check> found;
  for (const Check& c : shadow.checks) {
    if (c.tap.name == tap && c.tap.layer == layer && c.output == output) found.push_back(c);
  }
  return found;
}

std::set<Token> tokens_of(const std::vector<Check>& checks) {
  std::set<Token> tokens;
  for (const Check& c : checks) tokens.insert({c.seq, c.token});
  return tokens;
}

TEST(CrossCheckDetail, EveryOutputOfEveryTokenIsThere) {
  const ShadowResult shadow = run("").shadow;
  std::size_t n = 0;
  for (const Judged& judged : shadow.judged) {
    EXPECT_EQ(judged.verdict, Verdict::kPass) << judged.tap.name;
    double largest = 0;
    for (std::size_t i = 0; i < judged.n_checks; ++i) {
      const Check& check = shadow.checks.at(n + i);
      EXPECT_EQ(check.tap.name, judged.tap.name);
      EXPECT_EQ(check.output, judged.output);
      EXPECT_TRUE(check.same_bits || judged.contract) << judged.tap.name;
      largest = std::max(largest, double{check.ratio});
    }
    if (judged.contract) {
      EXPECT_FLOAT_EQ(static_cast<float>(judged.worst.ratio()), static_cast<float>(largest));
      EXPECT_LE(largest, 1);
    }
    n += judged.n_checks;
  }
  EXPECT_EQ(n, shadow.checks.size());
  EXPECT_EQ(static_cast<std::int64_t>(shadow.judged.size()), shadow.n_checks);
  for (const auto& [tap, output] :
       {std::pair("gate", "out"), std::pair("attn_out", "lse"), std::pair("rope_q", "pos"),
        std::pair("kv_write", "k_cache"), std::pair("kv_ledger", "v_cache")}) {
    const std::vector<Check> found = checks_of(shadow, tap, 1, output);
    EXPECT_EQ(static_cast<std::int64_t>(found.size()), kTokens) << tap;
    EXPECT_EQ(tokens_of(found).size(), found.size()) << tap;
  }
  // The last token of each text, and each that follows.
  EXPECT_EQ(
      tokens_of(checks_of(shadow, "logits", -1, "out")),
      (std::set<Token>{{0, 10}, {0, 11}, {0, 12}, {1, 3}, {1, 4}, {1, 5}, {2, 6}, {2, 7}, {2, 8}}));
}

TEST(CrossCheckDetail, IsKeptOnlyIfAskedFor) {
  const ShadowResult shadow = run("", false).shadow;
  EXPECT_TRUE(shadow.judged.empty());
  EXPECT_TRUE(shadow.checks.empty());
}

TEST(CrossCheckDetail, AFaultShowsInItsTokens) {
  // "not rotated": at position 0 that is right.
  const ShadowResult rope = run("M3f").shadow;
  for (int layer = 0; layer < 2; ++layer) {
    const std::vector<Check> found = checks_of(rope, "rope_q", layer, "x");
    ASSERT_EQ(static_cast<std::int64_t>(found.size()), kTokens);
    for (const Check& c : found) {
      EXPECT_EQ(c.ratio > 1, layer == 1 && c.token > 0) << c.token;
      EXPECT_TRUE(c.ratio <= 1 || !c.same_bits) << c.token;
    }
  }
  const ShadowResult cache = run("M18").shadow;  // nothing is stored
  for (const Check& c : checks_of(cache, "kv_write", 1, "k_cache")) {
    EXPECT_FALSE(c.same_bits);
    EXPECT_TRUE(std::isinf(c.ratio));
  }
  for (const Check& c : checks_of(cache, "kv_write", 0, "k_cache")) EXPECT_TRUE(c.same_bits);
  // Stored one position too early: the first token's slot holds the second's, the last one's
  // nothing.
  const ShadowResult early = run("M8c").shadow;
  EXPECT_EQ(tokens_of(checks_of(early, "kv_write", 0, "v_cache")).size(),
            static_cast<std::size_t>(kTokens));
}

TEST(CrossCheckDetail, UnsoundOutputsAreNamed) {
  Coarse path;
  ReferenceBackend reference;
  const CrossCheckResult result =
      run_with_fault({path, reference, reference, reference}, opener(), options(true), {}).result;
  EXPECT_EQ(result.agreement, Agreement::kCannotTell);
  const auto& all = result.shadow.unsound_outputs;
  std::int64_t n = 0;
  std::set<std::tuple<std::string_view, int, std::string_view>> places;
  for (const Unsound& u : all) {
    n += u.n;
    EXPECT_TRUE(places.insert({u.tap.name, u.tap.layer, u.output}).second) << u.tap.name;
    EXPECT_FALSE(u.spread.sound());
    EXPECT_GE(widest(result.shadow).spread.median, u.spread.median);
  }
  EXPECT_GT(n, 0);
  EXPECT_EQ(n, result.shadow.n_unsound);
  EXPECT_TRUE(places.contains({"q_proj", 0, "out"}));
  EXPECT_FALSE(places.contains({"resid1", 0, "x"}));
  const Json json = unsound_outputs(result.shadow);
  EXPECT_LE(json.size(), kMaxUnsound);
  EXPECT_EQ(json[0]["d"], number(widest(result.shadow).spread.median));
  for (const Check& c : checks_of(result.shadow, "q_proj", 0, "out")) EXPECT_TRUE(c.unsound);
}

// A path that says of its products that it adds up a million numbers one by one.
class Modest : public CpuBackend {
 public:
  Modest() : CpuBackend(1, "") {}
  Contract contract(const Op& op) const override {
    Contract c = CpuBackend::contract(op);
    if (std::holds_alternative<Gemm>(op)) c.sum_depth = 1 << 20;
    return c;
  }
};

TEST(CrossCheckDetail, LooseContractsAreNamed) {
  Modest modest;
  ReferenceBackend reference;
  const auto result =
      run_with_fault({modest, reference, reference, reference}, opener(), options(false), Fault())
          .result;
  EXPECT_EQ(result.agreement, Agreement::kAgree);
  std::set<std::string_view> taps;
  for (const Nearness& n : result.shadow.loose) {
    EXPECT_LT(n.ratio, 0.01);
    EXPECT_EQ(n.output, "out");
    taps.insert(n.tap);
  }
  EXPECT_TRUE(taps.contains("gate"));
  EXPECT_FALSE(taps.contains("swiglu"));
  const Json json = loose_outputs(result.shadow);
  EXPECT_EQ(json.size(), taps.size());
  EXPECT_LT(json[0]["ratio"], 0.01);
  EXPECT_TRUE(run("").shadow.loose.empty());
}

TEST(CrossCheckDetail, Json) {
  const ShadowResult shadow = run("M3f").shadow;
  const Json all = checks_detail(shadow);
  ASSERT_EQ(all.size(), shadow.judged.size());
  std::size_t tokens = 0;
  std::int64_t failed = 0;
  for (const Json& check : all) {
    tokens += check["tokens"].size();
    failed += check["verdict"] == "fail";
    if (check["op"] != "rope_q" || check["verdict"] != "fail") continue;
    EXPECT_EQ(check["layer"], 1);
    EXPECT_GT(check["ratio"], 1);
    EXPECT_EQ(check["coords"].size(), 2u);  // head and d
    EXPECT_GT(check["token"], 0);
    EXPECT_EQ(check["contract"]["input_unit"], 0);
  }
  EXPECT_EQ(tokens, shadow.checks.size());
  EXPECT_EQ(failed, static_cast<std::int64_t>(shadow.divergences.size()));
}

// What a browser takes for the data of the page.
Json data_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const std::size_t begin = page.find(open) + open.size();
  return Json::parse(page.substr(begin, page.find("</script", begin) - begin));
}

std::int64_t count(const std::string& text, const std::string& part) {
  std::int64_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

// As cross_check_page.js reads a cell.
struct Cell {
  double ratio;  // the middle of its step; -1 not checked
  bool same_bits, unsound;
};
Cell cell(const std::string& data, std::size_t i) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const std::size_t bits = digits.find(data[2 * i]) * 64 + digits.find(data[2 * i + 1]);
  const auto code = static_cast<double>(bits % 1024);
  double ratio = std::pow(10, ((code - 1.5) / 1020 - 0.5) * 8);
  if (code == 0) ratio = -1;
  if (code == 1) ratio = 0;
  if (code == 1023) ratio = std::numeric_limits<double>::infinity();
  return {ratio, (bits & 1024) != 0, (bits & 2048) != 0};
}

TEST(CrossCheckPage, HoldsEveryCheck) {
  const ShadowResult shadow = run("M3f").shadow;
  const std::string page = cross_check_page({{"verdict", "diverge"}}, shadow, "FAIL");
  const Json data = data_of(page);
  EXPECT_EQ(data["verdict"], "diverge");
  const Json& heat = data["heat"];
  ASSERT_EQ(static_cast<std::int64_t>(heat["tokens"].size()), kTokens);
  std::map<std::tuple<std::string, int, std::int32_t, std::int64_t>, Cell> cells;
  for (const Json& c : heat["cells"]) {
    ASSERT_EQ(c["data"].get<std::string>().size(), 2 * heat["tokens"].size());
    for (std::size_t i = 0; i < heat["tokens"].size(); ++i) {
      const Json& token = heat["tokens"][i];
      cells[{c["op"], c["layer"], token[0], token[1]}] = cell(c["data"], i);
    }
  }
  std::size_t n = 0;
  for (const Check& check : shadow.checks) {
    const auto at =
        cells.find({value_name(check.tap, check.output), check.tap.layer, check.seq, check.token});
    const bool computed = check.output == "out" || check.output == "x" || check.output == "lse";
    if (!computed || check.tap.name == "token") continue;
    ASSERT_NE(at, cells.end()) << check.tap.name;
    ++n;
    const Cell& shown = at->second;
    EXPECT_EQ(shown.same_bits, check.same_bits);
    EXPECT_EQ(shown.unsound, check.unsound);
    EXPECT_EQ(shown.ratio > 1, check.ratio > 1);
    if (check.ratio > 1e-4F && check.ratio < 1e4F) {
      EXPECT_NEAR(std::log10(shown.ratio), std::log10(check.ratio), 8.0 / 1020);
    } else if (check.ratio == 0 || std::isinf(check.ratio)) {
      EXPECT_EQ(shown.ratio, check.ratio);
    }
  }
  // 19 outputs of each of two layers, the embedding; the head for nine tokens.
  EXPECT_EQ(static_cast<std::int64_t>(n), kTokens * (2 * 19 + 1) + 9 * 3);
  std::set<std::string> strips;
  for (const Json& strip : heat["exact"]) {
    strips.insert(strip["name"]);
    EXPECT_EQ(strip["data"].get<std::string>().size(), heat["tokens"].size());
    EXPECT_EQ(strip["differ"], 0) << strip["name"];
  }
  EXPECT_EQ(strips,
            (std::set<std::string>{"ids", "embed", "params", "out", "logit", "seen", "pos", "seq",
                                   "pages", "rows", "kv_write k_cache", "kv_write v_cache",
                                   "kv_ledger k_cache", "kv_ledger v_cache"}));
}

TEST(CrossCheckPage, WhatIsWrittenToTheCacheShowsBitForBit) {
  const Json data = data_of(cross_check_page(Json::object(), run("M18").shadow, ""));
  for (const Json& strip : data["heat"]["exact"]) {
    const bool wrong = strip["name"].get<std::string>().starts_with("kv_write");
    EXPECT_EQ(strip["differ"], wrong ? kTokens : 0) << strip["name"];
    EXPECT_EQ(count(strip["data"], "x"), wrong ? kTokens : 0) << strip["name"];
  }
}

TEST(CrossCheckPage, StaysSmall) {
  Json document;
  for (int i = 0; i < 600; ++i) document["divergences"].push_back({{"token", i}});
  const Json data = data_of(cross_check_page(document, {}, ""));
  EXPECT_EQ(data["divergences"].size(), 500u);
  EXPECT_EQ(data["divergences"].back()["token"], 499);
  EXPECT_EQ(data["divergences_left_out"], 100);
}

TEST(CrossCheckPage, NothingBreaksOutOfIt) {
  const std::string evil = "</script><script>alert(1)</script><!--<script>&lt;\xff\u2028]]>";
  const ShadowResult none;
  const Json document{{"model", {{"name", evil}, {"file", evil}}},
                      {"divergences", {{{"cause", {{"name", evil}, {"evidence", evil}}}}}}};
  const std::string page =
      cross_check_page(document, none, "FAIL </noscript></pre>" + evil + "@DATA@");
  EXPECT_EQ(count(page, "<script"), 2);
  EXPECT_EQ(count(page, "</script"), 2);
  EXPECT_EQ(count(page, "</noscript"), 1);
  EXPECT_EQ(count(page, "<!--"), 0);
  EXPECT_EQ(data_of(page)["model"]["name"],
            "</script><script>alert(1)</script><!--<script>&lt;\ufffd\u2028]]>");
  EXPECT_NE(page.find("FAIL &lt;/noscript>"), std::string::npos);
}

TEST(CrossCheckPage, NeedsNothingElse) {
  const std::string page = cross_check_page({{"verdict", "agree"}}, {}, "PASS");
  for (const char* part :
       {"http:", "https:", "src=", "href=", "url(", "@import", "fetch(", "import("}) {
    EXPECT_EQ(page.find(part), std::string::npos) << part;
  }
  EXPECT_NE(page.find("default-src 'none'"), std::string::npos);
  EXPECT_EQ(count(page, "@SCRIPT@") + count(page, "@DATA@") + count(page, "@SUMMARY@"), 0);
}

}  // namespace
}  // namespace qwen::cli
