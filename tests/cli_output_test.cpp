// `qwen run`: what it writes where, its JSON document, and how it ends.
#include <sys/ioctl.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "tests/cli_process.h"

namespace qwen::testing {
namespace {

// Control characters other than the line end.
bool has_controls(const std::string& text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\n') || c == 0x7f;
  });
}

class CliOutput : public CliTest {};

TEST_F(CliOutput, StandardOutputIsTheAnswerAlone) {
  const Args args = {"-p", "hello", "-n", "30", "--seed", "3", "--ignore-eos"};
  const Result text = qwen(args);
  ASSERT_EQ(text.code, 0) << text.err;
  Args with_json = args;
  with_json.push_back("--json");
  const Json json = qwen(with_json).json();
  EXPECT_FALSE(text.out.empty());
  EXPECT_EQ(text.out, json["text"].get<std::string>());
  EXPECT_FALSE(has_controls(text.err)) << text.err;
  // Quiet: nothing else at all; and the same answer.
  Args quiet = args;
  quiet.insert(quiet.end(), {"-q"});
  const Result silent = qwen(quiet);
  EXPECT_EQ(silent.err, "");
  EXPECT_EQ(silent.out, text.out);
}

TEST_F(CliOutput, SummaryLine) {
  const Result result = qwen({"-p", "hello", "-n", "5", "--seed", "4711", "--ignore-eos"});
  const std::string line = result.err.substr(result.err.find("load "));
  for (const char* part : {" s · prompt ", " tok/s · first token ", " ms · 5 tok ",
                           " · stop: length · ctx ", "/512 · seed 4711\n"}) {
    EXPECT_NE(line.find(part), std::string::npos) << part << " in " << line;
  }
  const Result none = qwen({"-p", "hello", "-n", "5", "--no-timings"});
  EXPECT_EQ(none.err.find("seed"), std::string::npos) << none.err;
}

TEST_F(CliOutput, RunDocument) {
  const Result result =
      qwen({"-p", "hello", "--json", "-n", "4", "--seed", "7", "--ignore-eos", "--temp", "0.5"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json json = result.json();
  expect_keys(json, {"model", "device", "prompt", "ids", "text", "stop", "sampling", "timings"});
  expect_keys(json["model"], {"file", "name", "arch", "n_params", "file_type"});
  expect_keys(json["device"], {"kind", "name", "threads", "runs_on"});
  expect_keys(json["prompt"], {"text", "ids"});
  expect_keys(json["sampling"], {"temp", "top_k", "top_p", "min_p", "repeat_penalty", "seed"});
  expect_keys(json["timings"], {"load_s", "prompt_tokens", "prompt_s", "first_token_s",
                                "generated_tokens", "generate_s"});
  EXPECT_EQ(json["model"]["file"], model());
  EXPECT_EQ(json["model"]["arch"], "qwen2");
  EXPECT_EQ(json["prompt"]["text"], "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(json["ids"].size(), 4u);
  EXPECT_EQ(json["stop"], "length");
  // Decimals as they were written, defaults included.
  EXPECT_NE(result.out.find(
                R"("temp":0.5,"top_k":20,"top_p":0.8,"min_p":0.0,"repeat_penalty":1.05,"seed":7)"),
            std::string::npos)
      << result.out;
  EXPECT_EQ(json["timings"]["prompt_tokens"], json["prompt"]["ids"].size());
  EXPECT_EQ(json["timings"]["generated_tokens"], 4);
  for (const auto& [key, value] : json["timings"].items()) EXPECT_GE(value.get<double>(), 0) << key;
}

TEST_F(CliOutput, SamplingDefaultsOfTheFile) {
  auto writer = fixtures::tiny_model({});
  writer.set("general.sampling.temp", 0.25f);
  writer.set("general.sampling.top_k", std::int32_t{5});
  fixtures::write_file(path("suggests.gguf"), writer.bytes());
  const Args args = {"-m", path("suggests.gguf"), "-p", "x", "-n", "1", "--json", "-v"};
  const Result result = run_program(args, {.environment = {"QWEN_MIN_P=0.125", "QWEN_TOP_K=9"}});
  const Json sampling = result.json()["sampling"];
  EXPECT_EQ(sampling["temp"], 0.25);
  EXPECT_EQ(sampling["min_p"], 0.125);
  EXPECT_EQ(sampling["top_k"], 9);
  for (const char* line : {"temp = 0.25 (file)", "top-k = 9 (environment QWEN_TOP_K)",
                           "top-p = 0.8 (built in)", "predict = 1 (option)", "seed = "}) {
    EXPECT_NE(result.err.find(line), std::string::npos) << line << " in " << result.err;
  }
  Args optioned = args;
  optioned.insert(optioned.end(), {"--temp", "1", "--min-p", "0"});
  const Json other =
      run_program(optioned, {.environment = {"QWEN_MIN_P=0.125"}}).json()["sampling"];
  EXPECT_EQ(other["temp"], 1.0);
  EXPECT_EQ(other["min_p"], 0.0);
}

TEST_F(CliOutput, SeedsRepeat) {
  const auto ids = [&](const Args& more) {
    Args args = {"-p", "hello",   "--json", "-n",      "40", "--temp",
                 "2",  "--top-k", "0",      "--top-p", "1",  "--ignore-eos"};
    args.insert(args.end(), more.begin(), more.end());
    return qwen(args).json();
  };
  const Json first = ids({"--seed", "12345678901234567890"});
  EXPECT_EQ(first["sampling"]["seed"].get<std::uint64_t>(), 12345678901234567890u);
  EXPECT_EQ(first["ids"], ids({"--seed", "12345678901234567890"})["ids"]);
  EXPECT_EQ(first["ids"], ids({"--seed", "12345678901234567890", "-t", "1"})["ids"]);
  EXPECT_NE(first["ids"], ids({"--seed", "12345678901234567891"})["ids"]);
  // A seed that was drawn is reported, and repeats the answer.
  const Json drawn = ids({});
  const std::string seed = drawn["sampling"]["seed"].dump();
  EXPECT_EQ(drawn["ids"], ids({"--seed", seed})["ids"]);
  EXPECT_NE(drawn["sampling"]["seed"], ids({})["sampling"]["seed"]);
}

TEST_F(CliOutput, WaysToGiveModelAndPrompt) {
  const Args tail = {"--json", "-n", "3", "--temp", "0"};
  const auto prompt = [&](Args args, const Surroundings& setup = {}) {
    args.insert(std::find(args.begin(), args.end(), "--"), tail.begin(), tail.end());
    const Result result = run_program(args, setup);
    EXPECT_EQ(result.code, 0) << result.err;
    return result.json()["prompt"]["ids"];
  };
  const Surroundings in_environment{.environment = {"QWEN_MODEL=" + model()}};
  write_text("prompt.txt", "hello\n");
  const Json expected = prompt({"run", "-m", model(), "-p", "hello"});
  EXPECT_EQ(prompt({model(), "hello"}), expected);
  EXPECT_EQ(prompt({"run", model(), "hello"}), expected);
  EXPECT_EQ(prompt({"hello", "-m", model()}), expected);
  EXPECT_EQ(prompt({"--top-k=3", "run", "-m", model(), "hello"}), expected);
  EXPECT_EQ(prompt({"hello"}, in_environment), expected);
  EXPECT_EQ(prompt({model(), "hello"}, {.environment = {"QWEN_MODEL=none.gguf"}}), expected);
  EXPECT_EQ(prompt({model(), "-f", path("prompt.txt")}), expected);
  EXPECT_EQ(prompt({model(), "-f", "-"}, {.input = "hello\r\n"}), expected);
  EXPECT_EQ(prompt({model()}, {.input = "hello"}), expected);
  EXPECT_EQ(prompt({model(), "--", "hello"}), expected);
  EXPECT_NE(prompt({model(), "--", "-p"}), expected);
  EXPECT_EQ(prompt({model(), "-p", "[a,b]", "--raw"}), prompt({model(), "--raw", "--", "[a,b]"}));
  EXPECT_EQ(prompt({model(), "-p", "-x", "--raw"}).size(), 2u);
  // --raw takes all bytes, the line end too.
  EXPECT_EQ(prompt({model(), "--raw"}, {.input = "hello\n"}).size(),
            prompt({model(), "--raw", "-p", "hello"}).size() + 1);
  std::string ids;
  for (const Json& id : expected) ids += (ids.empty() ? "" : ",") + id.dump();
  EXPECT_EQ(prompt({model(), "--ids", ids}), expected);
  EXPECT_NE(prompt({model(), "-sys", "be brief", "-p", "hello"}), expected);
}

TEST_F(CliOutput, LlamaCppNames) {
  const Result result = qwen({"-p", "hello", "-n4", "-ngl", "0", "-st", "-c=64", "--temperature",
                              "0", "--n-gpu-layers", "0"});
  EXPECT_EQ(result.code, 2);  // -ngl and its long form are one option
  const Result once = qwen({"-p", "hello", "-n4", "-ngl", "99", "-st", "-c=64", "--temperature",
                            "0", "--json", "--ignore-eos"});
  ASSERT_EQ(once.code, 0) << once.err;
  EXPECT_EQ(once.json()["ids"].size(), 4u);
}

TEST_F(CliOutput, PredictAndContextEndTheAnswer) {
  const Json none = qwen(greedy({"-p", "hello", "-n", "0", "--json"})).json();
  EXPECT_EQ(none["ids"].size(), 0u);
  EXPECT_EQ(none["stop"], "length");
  const Result full = qwen(greedy({"-p", "hello", "-c", "40", "--ignore-eos", "--json"}));
  const Json json = full.json();
  EXPECT_EQ(json["stop"], "context");
  // Every position of the context is used, and the last token needs none.
  EXPECT_EQ(json["prompt"]["ids"].size() + json["ids"].size(), 41u);
  EXPECT_NE(full.err.find("stop: context · ctx 40/40"), std::string::npos) << full.err;
}

// A token that the model makes, but not as its first, is made an end token.
TEST_F(CliOutput, EndTokensEndTheAnswer) {
  const Args args = {"hello", "-n", "9", "--seed", "3", "--temp", "2", "--json"};
  Args endless = args;
  endless.insert(endless.end(), {"--ignore-eos", "-m", model()});
  const Json ids = run_program(endless).json()["ids"];
  std::size_t at = 1;
  while (at < ids.size() && std::find(ids.begin(), ids.end(), ids[at]) != ids.begin() + at) ++at;
  ASSERT_LT(at, ids.size()) << ids;
  for (const char* key : {"eos", "eot", "eom"}) {
    auto writer = fixtures::tiny_model({});
    writer.set("tokenizer.ggml." + std::string(key) + "_token_id", ids[at].get<std::uint32_t>());
    fixtures::write_file(path("ends.gguf"), writer.bytes());
    Args ending = args;
    ending.insert(ending.end(), {"-m", path("ends.gguf")});
    const Json ended = run_program(ending).json();
    EXPECT_EQ(ended["stop"], "eos") << key;
    EXPECT_EQ(ended["ids"], Json(std::vector<Json>(ids.begin(), ids.begin() + at + 1))) << key;
    // The end token is no text.
    std::string before;
    for (std::size_t i = 0; i < at; ++i) before += (i == 0 ? "" : ",") + ids[i].dump();
    EXPECT_EQ(ended["text"], qwen({"detokenize", "--json", "--ids", before}).json()["text"]);
  }
}

TEST_F(CliOutput, StopStringsAcrossTokenBorders) {
  const Args args = {"-p", "hello", "-n", "60", "--seed", "3", "--ignore-eos", "--temp", "1.5"};
  Args plain = args;
  plain.push_back("--json");
  const std::string text = qwen(plain).json()["text"];
  int tried = 0;
  // Longer than any token: at least one border is inside.
  constexpr std::size_t kLength = 12;
  for (std::size_t at = 3; at + kLength < text.size() && tried < 6; at += 5) {
    const std::string stop = text.substr(at, kLength);
    if (std::any_of(stop.begin(), stop.end(), [](char c) { return c < 0x20 || c == 0x7f; }))
      continue;
    ++tried;
    Args stopped = args;
    stopped.insert(stopped.end(), {"--stop", "[e,never there]", "--stop", stop});
    const Result result = qwen(stopped);
    EXPECT_EQ(result.out, text.substr(0, text.find(stop))) << stop;
    EXPECT_NE(result.err.find("stop: stop"), std::string::npos) << result.err;
  }
  EXPECT_GE(tried, 2) << text;
}

TEST_F(CliOutput, TerminalsGetColoursAndPipesDoNot) {
  const Args args = {"-p", "hello", "-n", "3"};
  const Result terminal = qwen(args, {.errors_to_terminal = true});
  EXPECT_NE(terminal.err.find("\033["), std::string::npos);
  EXPECT_NE(terminal.err.find("context 512 (trained) · KV "), std::string::npos) << terminal.err;
  const Result plain = qwen(args, {.environment = {"NO_COLOR=1"}, .errors_to_terminal = true});
  EXPECT_EQ(plain.err.find("\033["), std::string::npos) << plain.err;
  EXPECT_EQ(qwen(args).err.find("\033"), std::string::npos);
  Args forced = args;
  forced.insert(forced.end(), {"--color", "always"});
  EXPECT_NE(qwen(forced).err.find("\033["), std::string::npos);
  Args never = args;
  never.insert(never.end(), {"--color", "never"});
  EXPECT_EQ(qwen(never, {.errors_to_terminal = true}).err.find("\033[2m"), std::string::npos);
}

TEST_F(CliOutput, AutoSaysWhyItIsNotTheGpu) {
  const Result result = qwen({"-p", "hello", "-n", "1", "--json"});
  if (result.json()["device"]["kind"] == "cuda") GTEST_SKIP() << "there is a GPU";
  // A build without CUDA mentions it in `devices` only.
  const bool built =
      run_program({"devices"}).out.find("this build has no CUDA backend") == std::string::npos;
  const bool said = result.err.find("using cpu: cuda cannot be used (") != std::string::npos;
  EXPECT_EQ(said, built) << result.err;
  const Result chosen = qwen({"-p", "hello", "-n", "1", "--json", "--device", "ref"});
  EXPECT_EQ(chosen.json()["device"]["kind"], "ref");
  EXPECT_EQ(chosen.json()["device"]["threads"], 1);
  EXPECT_EQ(chosen.err.find("using"), std::string::npos) << chosen.err;
}

TEST_F(CliOutput, InterruptEndsTheAnswer) {
  write_model("long.gguf", {.context = 200'000});
  Child child({"-m", path("long.gguf"), "-p", "hello", "--ignore-eos"});
  ASSERT_TRUE(child.wait_for_output());
  child.signal(SIGINT);
  const Result result = child.finish();
  EXPECT_EQ(result.code, 0);
  EXPECT_FALSE(result.out.empty());
  EXPECT_NE(result.err.find("stop: interrupt"), std::string::npos) << result.err;
}

TEST_F(CliOutput, InterruptEndsALongPrompt) {
  write_model("long.gguf", {.context = 200'000});
  std::string ids = "1";
  for (int i = 0; i < 30'000; ++i) ids += ",2";
  Child child({"-m", path("long.gguf"), "--ids", ids, "--device", "ref", "--json"});
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));  // minutes would be needed
  child.signal(SIGINT);
  const Result result = child.finish();
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.json()["stop"], "interrupt");
  EXPECT_EQ(result.json()["ids"].size(), 0u);
  // How fast it would have been is not known.
  EXPECT_NE(result.err.find("prompt of 30,001 tok stopped after "), std::string::npos)
      << result.err;
  EXPECT_EQ(result.err.find("tok/s"), std::string::npos) << result.err;
}

TEST_F(CliOutput, SecondInterruptLeaves) {
  write_model("long.gguf", {.context = 200'000});
  Child child({"-m", path("long.gguf"), "-p", "hello", "--ignore-eos"});
  // Nobody reads: the child is held up in a write, where the first signal must not end it.
  int filled = 0;
  // Held up when nothing has come for a second: on a slow machine a token takes a while.
  for (int i = 0, quiet = 0; i < 600 && quiet < 10; ++i) {
    const int before = filled;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    ASSERT_EQ(ioctl(child.output(), FIONREAD, &filled), 0);
    quiet = filled > 3000 && filled == before ? quiet + 1 : 0;
  }
  ASSERT_GT(filled, 3000);
  child.signal(SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  ASSERT_TRUE(child.alive());
  child.signal(SIGINT);
  EXPECT_EQ(child.finish().code, 130);
}

TEST_F(CliOutput, SignalsOutsideAnAnswer) {
  const std::vector<std::pair<int, int>> cases = {{SIGINT, 130}, {SIGTERM, 143}};
  for (const auto& [number, code] : cases) {
    Child child({"-m", model()}, {.input_stays_open = true});  // waits for its prompt
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    ASSERT_TRUE(child.alive());
    child.signal(number);
    EXPECT_EQ(child.finish().code, code);
  }
}

TEST_F(CliOutput, ClosedStandardOutputEndsQuietly) {
  write_model("long.gguf", {.context = 200'000});
  Child child({"-m", path("long.gguf"), "-p", "hello", "--ignore-eos"});
  ASSERT_TRUE(child.wait_for_output());
  child.close_output();
  const Result result = child.finish();
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.err.find("error"), std::string::npos) << result.err;
}

// The trace would be opened as the stream that is missing.
TEST_F(CliOutput, ClosedStreamsAreNotReused) {
  const std::string trace = path("closed.jsonl");
  const std::string command = std::string(QWEN_PROGRAM) + " -m " + model() +
                              " -p hello -n 2 --trace " + trace + " <&- >&- 2>&-";
  EXPECT_EQ(std::system(command.c_str()), 0);
  std::ifstream in(trace);
  int lines = 0;
  for (std::string line; std::getline(in, line); ++lines) EXPECT_TRUE(Json::accept(line)) << line;
  EXPECT_GT(lines, 1);
}

}  // namespace
}  // namespace qwen::testing
