// The commands beside `run`: their output and JSON documents; and the rarer ways to run.
#include <cmath>
#include <fstream>
#include <map>
#include <set>

#include "tests/cli_process.h"

namespace qwen::testing {
namespace {

class CliCommands : public CliTest {
 protected:
  static Json last_line(const std::string& file) {
    std::ifstream in(file);
    std::string last;
    for (std::string line; std::getline(in, line);) last = line;
    return Json::parse(last);
  }
};

TEST_F(CliCommands, Tokens) {
  const std::string text = "the caf\u00e9 \U0001F600 <|im_end|>\r\n\tpeople's";
  const Json json = qwen({"tokenize", "--json", "-p", text}).json();
  expect_keys(json, {"ids", "pieces"});
  ASSERT_EQ(json["ids"].size(), json["pieces"].size());
  const Result line = qwen({"tokenize"}, {.input = text});
  std::string ids;
  for (const Json& id : json["ids"]) ids += (ids.empty() ? "" : " ") + id.dump();
  EXPECT_EQ(line.out, ids + "\n");
  std::replace(ids.begin(), ids.end(), ' ', ',');
  EXPECT_EQ(qwen({"detokenize", "--ids", ids}).out, text);
  EXPECT_EQ(qwen({"detokenize", "--ids", ids, "--json"}).json()["text"], text);
  const Json special = qwen({"tokenize", "--json", "--special", "-p", text}).json();
  EXPECT_LT(special["ids"].size(), json["ids"].size());
  EXPECT_EQ(special["pieces"][special["pieces"].size() - 1],
            json["pieces"][json["pieces"].size() - 1]);
  // Half a character: exact bytes as text, U+FFFD in JSON.
  const Json euro = qwen({"tokenize", "--json", "-p", "\u20ac"}).json();
  ASSERT_EQ(euro["ids"].size(), 3u);
  EXPECT_EQ(euro["pieces"][0], "\ufffd");
  EXPECT_EQ(qwen({"detokenize", "--ids", euro["ids"][0].dump()}).out, "\xe2");
}

TEST_F(CliCommands, Score) {
  const std::string text = "the people of the world said that it was good";
  const Json json = qwen({"score", "--json", "-p", text, "--top", "574"}).json();
  expect_keys(json, {"model", "device", "ids", "tokens", "nll", "n_scored", "perplexity"});
  const Json& tokens = json["tokens"];
  ASSERT_EQ(tokens.size(), json["ids"].size());
  EXPECT_TRUE(tokens[0]["logprob"].is_null());
  double nll = 0;
  for (std::size_t i = 1; i < tokens.size(); ++i) {
    expect_keys(tokens[i], {"id", "piece", "logprob", "top"});
    const double logprob = tokens[i]["logprob"];
    nll -= logprob;
    double sum = 0;
    double own = 1;
    double before = 0;
    for (const Json& candidate : tokens[i]["top"]) {
      const double p = candidate["logprob"];
      sum += std::exp(p);
      EXPECT_LE(p, before);
      before = p;
      if (candidate["id"] == tokens[i]["id"]) own = p;
    }
    EXPECT_NEAR(sum, 1, 1e-9);
    EXPECT_DOUBLE_EQ(own, logprob);
  }
  EXPECT_NEAR(json["nll"].get<double>(), nll, 1e-9 * nll);
  EXPECT_EQ(json["n_scored"], tokens.size() - 1);
  EXPECT_NEAR(json["perplexity"].get<double>(),
              std::exp(nll / static_cast<double>(tokens.size() - 1)), 1e-6);
  // The default is five; the likeliest after the text is what greedy decoding takes.
  const Json five = qwen({"score", "--json", "-p", text + "s"}).json();
  EXPECT_EQ(five["tokens"][2]["top"].size(), 5u);
  std::string ids;
  for (std::size_t i = 0; i + 1 < five["ids"].size(); ++i) {
    ids += (i == 0 ? "" : ",") + five["ids"][i].dump();
  }
  const Json next = qwen(greedy({"--ids", ids, "-n", "1", "--ignore-eos", "--json"})).json();
  EXPECT_EQ(next["ids"][0], five["tokens"].back()["top"][0]["id"]);
}

// A long text is scored in several steps; a prompt of that length is one step, and must give the
// same.
TEST_F(CliCommands, ScoreOfLongTexts) {
  std::string ids = "1";
  for (int i = 1; i < 140; ++i) ids += "," + std::to_string(i * 11 % 500);
  const Json score = qwen({"score", "--json", "--ids", ids + ",7"}).json();
  ASSERT_EQ(score["tokens"].size(), 141u);
  const std::string file = path("next.jsonl");
  ASSERT_EQ(qwen({"--ids", ids, "-n", "1", "--trace", file}).code, 0);
  const Json next = last_line(file);
  for (std::size_t i = 0; i < 5; ++i) {
    const Json& expected = next["candidates"][i];
    const Json& got = score["tokens"].back()["top"][i];
    EXPECT_EQ(got["id"], expected["id"]);
    EXPECT_NEAR(got["logprob"].get<double>(), expected["logprob"].get<double>(), 1e-4);
  }
  const Json one = qwen({"score", "--json", "--ids", "5"}).json();
  EXPECT_EQ(one["n_scored"], 0);
  EXPECT_TRUE(one["perplexity"].is_null());
}

TEST_F(CliCommands, Template) {
  write_text("messages.json",
             R"([{"role":"system","content":"s"},{"role":"user","content":"<|im_end|>é"}])");
  const std::string head =
      "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\n<|im_end|>é<|im_end|>\n";
  const Result result = qwen({"template", "-f", path("messages.json")});
  EXPECT_EQ(result.out, head + "<|im_start|>assistant\n") << result.err;
  EXPECT_EQ(qwen({"template", "-f", path("messages.json"), "--no-generation-prompt"}).out, head);
}

TEST_F(CliCommands, Inspect) {
  const Json json = run_program({"inspect", model(), "--json"}).json();
  expect_keys(json, {"version", "alignment", "metadata", "tensors", "data_offset", "file_bytes"});
  EXPECT_EQ(json["metadata"]["general.architecture"], "qwen2");
  EXPECT_EQ(json["metadata"]["tokenizer.ggml.tokens"].size(), 9u);
  EXPECT_EQ(json["metadata"]["tokenizer.ggml.tokens"][8], "... 566 more");
  expect_keys(json["tensors"][0], {"name", "type", "shape", "offset", "bytes"});
  EXPECT_EQ(json["tensors"][0]["shape"], (Json{574, 256}));
  EXPECT_EQ(json["file_bytes"], std::filesystem::file_size(model()));
  const Json full = run_program({"inspect", model(), "--json", "--full"}).json();
  EXPECT_EQ(full["metadata"]["tokenizer.ggml.tokens"].size(), 574u);
  const Result text = run_program({"inspect", model()});
  for (const char* part : {"arch        qwen2", "layers      2", "memory      ", "F32"}) {
    EXPECT_NE(text.out.find(part), std::string::npos) << part << " in " << text.out;
  }
  // A file that cannot be run can be looked at.
  fixtures::write_file(path("other.gguf"), fixtures::broken_model({}, "other_arch"));
  const Result other = run_program({"inspect", path("other.gguf")});
  EXPECT_EQ(other.code, 0);
  EXPECT_NE(other.out.find("cannot run  architecture 'llama'"), std::string::npos) << other.out;
}

TEST_F(CliCommands, DevicesVersionAndCompletion) {
  const Json json = run_program({"devices", "--json"}).json();
  std::set<std::string> kinds;
  for (const Json& device : json["devices"]) {
    expect_keys(device, {"kind", "name", "usable", "why_not", "memory_bytes", "memory_free_bytes",
                         "features"});
    EXPECT_NE(device["usable"].get<bool>(), device["why_not"].is_string()) << device;
    kinds.insert(device["kind"]);
  }
  EXPECT_EQ(kinds, (std::set<std::string>{"cpu", "cuda", "ref"}));
  EXPECT_TRUE(run_program({"version"}).out.starts_with("qwen "));
  EXPECT_EQ(run_program({"--version"}).out, run_program({"version"}).out);
  EXPECT_EQ(run_program({"--version", "--json"}).json(), run_program({"version", "--json"}).json());
  for (const char* shell : {"bash", "zsh", "fish"}) {
    EXPECT_NE(run_program({"completion", shell}).out.find("ctx-size"), std::string::npos) << shell;
  }
  EXPECT_EQ(std::system((std::string(QWEN_PROGRAM) + " completion bash | bash -n").c_str()), 0);
}

TEST_F(CliCommands, EveryCommandHasHelp) {
  const Result overview = run_program({"--help"});
  EXPECT_EQ(overview.code, 0);
  EXPECT_EQ(run_program({"-h", "--json"}).out, overview.out);
  for (const char* command : {"run", "score", "cross-check", "bench", "inspect", "tokenize",
                              "detokenize", "template", "devices", "completion", "version"}) {
    EXPECT_NE(overview.out.find(std::string("\n  ") + command), std::string::npos) << command;
    const Result help = run_program({command, "--help"});
    EXPECT_EQ(help.code, 0);
    EXPECT_NE(help.out.find("Usage: qwen " + std::string(command)), std::string::npos) << help.out;
    EXPECT_EQ(help.err, "");
  }
}

TEST_F(CliCommands, CrossCheck) {
  const Args args = {"cross-check", "--device", "cpu", "-n", "2"};
  Args with_json = args;
  with_json.push_back("--json");
  const Json json = qwen(with_json).json();
  expect_keys(json, {"schema", "verdict", "model", "device", "oracle", "tokens", "checks",
                     "elements", "unsound", "unsound_outputs", "worst", "loose", "load", "fused",
                     "logits", "drift", "first_divergence", "divergences"});
  EXPECT_EQ(json["verdict"], "agree");
  EXPECT_EQ(json["oracle"], "ref");
  EXPECT_EQ(json["first_divergence"], nullptr);
  EXPECT_GT(json["load"]["weights"], 20);
  expect_keys(json["logits"], {"kl_mean", "kl_max", "top1_agree", "flips", "flips_explained"});
  EXPECT_LT(json["logits"]["kl_max"], 1e-4);
  expect_keys(json["drift"][0], {"seq", "token", "layer", "path", "twins"});
  EXPECT_EQ(qwen({"cross-check", "--device", "cpu", "-n", "0", "--mode", "shadow", "--json"})
                .json()["logits"],
            nullptr);
  EXPECT_EQ(qwen({"cross-check", "--device", "cpu", "-n", "0", "--mode", "free", "--json"})
                .json()["checks"],
            0);
  const Result text = qwen(args);
  EXPECT_EQ(text.code, 0);
  EXPECT_TRUE(text.out.starts_with("PASS cpu against ref: ")) << text.out;
  EXPECT_EQ(run_program({"--cross-check", model(), "--device", "cpu", "-n", "2"}).out, text.out);
  const Json one =
      qwen({"cross-check", "--device", "cpu", "--ids", "1,2,3", "-n", "0", "--json"}).json();
  EXPECT_EQ(one["tokens"], 3);
  expect_failure(qwen({"cross-check", "--device", "ref"}), 2,
                 "what the others are checked against");
  expect_failure(qwen({"cross-check", "--device", "cpu", "--ids", "999999"}), 2,
                 "not in the vocabulary");
}

TEST_F(CliCommands, Bench) {
  const Args args = {"bench", "-p", "8,16", "-d", "0,32", "-b", "1,3",
                     "-n",    "4",  "-r",   "2",  "--kv", "f32"};
  Args with_json = args;
  with_json.insert(with_json.end(), {"--json", "--profile"});
  const Json json = qwen(with_json).json();
  expect_keys(json, {"model", "device", "bandwidth_bytes_s", "weight_bytes_per_token",
                     "kv_bytes_per_position", "prefill", "decode", "peak_memory_bytes"});
  // 2 layers x (K, V) x 2 heads x 64 x 4 bytes.
  EXPECT_EQ(json["kv_bytes_per_position"], 2 * 2 * 2 * 64 * 4);
  // The tied table is read whole as the head, and one row of it as the embedding.
  std::int64_t weights = 256 * 4;
  const Json inspected = run_program({"inspect", model(), "--json"}).json();
  for (const Json& tensor : inspected["tensors"]) weights += tensor["bytes"].get<std::int64_t>();
  EXPECT_EQ(json["weight_bytes_per_token"], weights);
  EXPECT_EQ(json["prefill"].size(), 2u);
  EXPECT_EQ(json["decode"].size(), 4u);
  EXPECT_EQ(json["decode"][1]["depth"], 32);
  EXPECT_EQ(json["decode"][1]["batch"], 1);
  EXPECT_GT(json["decode"][1]["tok_s"].get<double>(), 0);
  EXPECT_EQ(json["decode"][3]["depth"], 32);
  EXPECT_EQ(json["decode"][3]["batch"], 3);
  // The 24 ops of a step, and what leads from one to the next.
  EXPECT_EQ(json["decode"][1]["profile"].size(), 25u) << json["decode"][1]["profile"];
  const Result text = qwen(args);
  EXPECT_EQ(text.code, 0);
  EXPECT_NE(text.out.find("peak memory"), std::string::npos) << text.out;
  const Json half =
      qwen({"bench", "-p", "8", "-d", "0", "-n", "1", "-r", "1", "--kv", "f16", "--json"}).json();
  EXPECT_EQ(half["kv_bytes_per_position"], 2 * 2 * 2 * 64 * 2);
}

TEST_F(CliCommands, BenchBesideAnEarlierRun) {
  const auto bench = [&](Args more) {
    more.insert(more.begin(), {"bench", "-p", "8", "-n", "4", "-r", "1", "--device", "cpu"});
    return qwen(more);
  };
  Json earlier = bench({"-d", "0", "--json"}).json();
  const auto compared = [&](Args more) {
    std::ofstream(path("earlier.json")) << earlier;
    more.insert(more.end(), {"-d", "0,3", "--compare", path("earlier.json")});
    return bench(more);
  };
  // Another machine's, so that the numbers tell the runs apart.
  earlier["device"]["name"] = "abacus";
  earlier["bandwidth_bytes_s"] = 5e9;
  earlier["decode"][0]["tok_s"] = 1e-3;
  earlier["decode"][0]["limit_tok_s"] = 4e-3;
  const Json json = compared({"--json"}).json();
  EXPECT_EQ(json["compared_with"]["device"]["name"], "abacus");
  const Json& row = json["decode"][0];
  EXPECT_EQ(row["before"]["tok_s"], 1e-3);
  EXPECT_EQ(row["before"]["share"], 0.25);
  EXPECT_EQ(row["before"]["ratio"], row["tok_s"].get<double>() / 1e-3);
  EXPECT_TRUE(json["decode"][1]["before"].is_null());  // of another depth
  EXPECT_GT(json["prefill"][0]["before"]["ratio"].get<double>(), 0);
  const Result text = compared({});
  EXPECT_EQ(text.code, 0) << text.err;
  for (const char* part : {"abacus  ", "5.0 GB/s", "25 %", "not measured"}) {
    EXPECT_NE(text.out.find(part), std::string::npos) << part << " in " << text.out;
  }
  earlier["device"]["name"] = "\x1b[31m";
  EXPECT_EQ(compared({}).out.find('\x1b'), std::string::npos);
  for (const Json& speed : {Json(-1), Json(1e-310), Json("fast")}) {
    earlier["decode"][0]["limit_tok_s"] = speed;
    expect_failure(compared({}), 2, "is not what qwen bench --json writes");
  }
  for (const Json& rows : {Json(7), Json(nullptr), Json::object()}) {
    earlier["decode"] = rows;
    expect_failure(compared({}), 2, "is not what qwen bench --json writes", "--json > FILE.json");
  }
  expect_failure(bench({"--compare", path("none")}), 2, "cannot read");
}

TEST_F(CliCommands, Trace) {
  const std::string file = path("trace.jsonl");
  const Json json = qwen(greedy({"-p", "hello", "-n", "3", "--json", "--ignore-eos", "--trace",
                                 file, "--trace-ops"}))
                        .json();
  std::ifstream in(file);
  std::map<std::string, int> types;
  std::vector<std::int32_t> ids;
  for (std::string line; std::getline(in, line);) {
    const Json entry = Json::parse(line);
    ++types[entry["type"]];
    if (entry["type"] != "token") continue;
    ids.push_back(entry["id"]);
    EXPECT_EQ(entry["candidates"].size(), 5u);
    EXPECT_EQ(entry["candidates"][0]["id"], entry["id"]);  // greedy
  }
  EXPECT_EQ(Json(ids), json["ids"]);
  EXPECT_EQ(types["load"], 1);
  EXPECT_EQ(types["token"], 3);
  EXPECT_GT(types["op"], 3 * 40);
}

TEST_F(CliCommands, HalfACache) {
  // Half the memory for the same context, which shows in the sums of a refusal.
  write_model("huge.gguf", {.context = 1'000'000'000});
  const auto refused = [&](const char* kv) {
    return run_program(
        {"-m", path("huge.gguf"), "-p", "x", "-c", "900000000", "--device", "cpu", "--kv", kv});
  };
  expect_failure(refused("f32"), 4, "KV 1716.6, ");
  expect_failure(refused("f16"), 4, "KV 858.3, ");
  const Args args = greedy({"-p", "hello", "-n", "4", "--device", "cpu", "--kv", "f16", "-v"});
  const Result half = qwen(args);
  EXPECT_EQ(half.code, 0);
  EXPECT_NE(half.err.find("kv = F16 (option)"), std::string::npos) << half.err;
}

TEST_F(CliCommands, LayersAreLeftOut) {
  const auto ids = [&](const char* layers) {
    return qwen(greedy({"-p", "hello", "-n", "8", "--ignore-eos", "--json", "--layers", layers}))
        .json()["ids"];
  };
  const Json all = qwen(greedy({"-p", "hello", "-n", "8", "--ignore-eos", "--json"})).json()["ids"];
  EXPECT_EQ(ids("2"), all);
  EXPECT_NE(ids("1"), all);
  EXPECT_EQ(ids("0").size(), 8u);
}

TEST_F(CliCommands, ModelsWithoutVocabulary) {
  auto writer = fixtures::tiny_model({});
  for (const char* key : {"tokens", "token_type", "merges", "eos_token_id", "bos_token_id",
                          "padding_token_id", "eot_token_id", "pre"}) {
    writer.remove_key("tokenizer.ggml." + std::string(key));
  }
  writer.remove_key("tokenizer.chat_template");
  writer.set("tokenizer.ggml.model", std::string("no_vocab"));
  fixtures::write_file(path("ids.gguf"), writer.bytes());
  const Json json =
      run_program(greedy({path("ids.gguf"), "--ids", "1,2,3", "-n", "3", "--json"})).json();
  const Json& ids = json["ids"];
  EXPECT_EQ(run_program(greedy({path("ids.gguf"), "--ids", "1,2,3", "-n", "3"})).out,
            ids[0].dump() + " " + ids[1].dump() + " " + ids[2].dump());
  expect_failure(run_program({path("ids.gguf"), "hello"}), 3, "no vocabulary", "--ids");
  expect_failure(run_program({path("ids.gguf"), "--ids", "1", "--stop", "x"}), 2, "no vocabulary");
}

TEST_F(CliCommands, AnotherPreTokenizerIsWarnedOf) {
  auto writer = fixtures::tiny_model({});
  writer.set("tokenizer.ggml.pre", std::string("llama-bpe"));
  fixtures::write_file(path("pre.gguf"), writer.bytes());
  const Result result = run_program({path("pre.gguf"), "hello", "-n", "1"});
  EXPECT_EQ(result.code, 0);
  EXPECT_NE(result.err.find("warning: tokenizer.ggml.pre is 'llama-bpe'"), std::string::npos)
      << result.err;
}

}  // namespace
}  // namespace qwen::testing
