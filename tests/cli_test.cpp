// What the program refuses, and how: messages, hints, exit codes.
#include <fstream>

#include "tests/cli_process.h"

namespace qwen::testing {
namespace {

class CliErrors : public CliTest {};

TEST_F(CliErrors, UnknownOptionsAndCommandsAreNamed) {
  expect_failure(qwen({"-p", "x", "--tmep", "1"}), 2,
                 "unknown option --tmep; did you mean --temp?");
  expect_failure(qwen({"-p", "x", "-tmep", "1"}), 2, "unknown option -tmep; did you mean --temp?");
  expect_failure(qwen({"-p", "x", "--zzzzzzz"}), 2, "unknown option --zzzzzzz", "--help");
  expect_failure(run_program({"scor", "-p", "x"}), 3, "scor: no such file", "qwen score");
  expect_failure(run_program({"devces"}), 3, "devces: no such file", "qwen devices");
  for (const char* later : {"serve", "pull"}) {
    expect_failure(run_program({later}), 2, "is not built yet");
  }
}

TEST_F(CliErrors, NoModelAndNoPrompt) {
  expect_failure(run_program({}), 2, "the prompt is empty");
  expect_failure(run_program({"none.gguf"}), 3, "none.gguf: no such file");
  expect_failure(run_program({"none", "-p", "x"}), 3, "none: no such file");
}

TEST_F(CliErrors, Conflicts) {
  const std::vector<std::pair<Args, std::string>> cases = {
      {{"--system", "s", "--raw", "-p", "x"}, "--system and --raw"},
      {{"-sys", "s", "--ids", "1"}, "--system and --ids"},
      {{"-p", "x", "-f", "y"}, "two sources of the prompt: -p and -f"},
      {{"-p", "x", "--ids", "1"}, "two sources of the prompt"},
      {{"hello", "-p", "x"}, "two sources of the prompt"},
      {{"-p", "x", "-p", "y"}, "--prompt is given more than once"},
      {{"hello", "you"}, "unexpected argument 'you'"},
      {{"-p", "x", "--special"}, "--special needs --raw"},
      {{"-p", "x", "--trace-ops"}, "--trace-ops needs --trace"},
      {{"-p", "x", "-q", "-v"}, "-q and -v"},
      {{"-p", "x", "-ngl", "0", "--device", "cuda"}, "--device cuda and -ngl 0"},
      {{"-p", "x", "--isa", "avx2", "--device", "ref"}, "--isa"},
      {{"-p", "x", "--level", "graph", "--device", "cpu"}, "--level is for --device cuda"},
      {{"-p", "x", "--sync", "--device", "ref"}, "--sync is for --device cuda"},
      {{"-p", "x", "--kv", "f8"}, "--kv is 'f8', expected f16|f32"},
      {{"-p", "x", "-b", "2"}, "-b: "},
      {{"-p", "x", "-t", "2", "--device", "ref"}, "-t: --device ref has one thread"},
      {{"-p", "x", "--raw=1"}, "--raw takes no value"},
  };
  for (const auto& [args, text] : cases) expect_failure(qwen(args), 2, text);
}

TEST_F(CliErrors, TraceIsNotTheModel) {
  const auto bytes = std::filesystem::file_size(model());
  std::filesystem::create_hard_link(model(), path("link.gguf"));
  for (const std::string& name : {model(), path("link.gguf")}) {
    expect_failure(qwen({"-p", "x", "--trace", name}), 2, " is the model");
  }
  EXPECT_EQ(std::filesystem::file_size(model()), bytes);
}

TEST_F(CliErrors, NumbersOutOfRange) {
  const std::vector<Args> cases = {{"--temp", "-0.1"},
                                   {"--temp", "nan"},
                                   {"--temp", "inf"},
                                   {"--temp", "warm"},
                                   {"--top-p", "0"},
                                   {"--top-p", "1.01"},
                                   {"--min-p", "-1"},
                                   {"--min-p", "1.5"},
                                   {"--top-k", "-1"},
                                   {"--top-k", "2.5"},
                                   {"--repeat-penalty", "0"},
                                   {"-n", "-2"},
                                   {"-n", "x"},
                                   {"-n", "99999999999"},
                                   {"-c", "0"},
                                   {"-t", "0"},
                                   {"-t", "1025"},
                                   {"--seed", "x"},
                                   {"--seed", "-2"},
                                   {"--layers", "-1"},
                                   {"--layers", "3"},
                                   {"--device", "tpu"},
                                   {"--color", "sometimes"},
                                   {"--stop", ""},
                                   {"--seed", "18446744073709551616"}};
  for (const Args& option : cases) {
    Args args = {"-p", "x"};
    args.insert(args.end(), option.begin(), option.end());
    expect_failure(qwen(args), 2,
                   option[0] == "-n"   ? "--predict"
                   : option[0] == "-c" ? "--ctx-size"
                   : option[0] == "-t" ? "--threads"
                                       : option[0]);
  }
  expect_failure(run_program({model(), "-p", "x", "--temp"}), 2, "--temp needs a value");
}

TEST_F(CliErrors, EnvironmentIsCheckedToo) {
  expect_failure(qwen({"-p", "x"}, {.environment = {"QWEN_TEMP=hot"}}), 2, "QWEN_TEMP is 'hot'");
  expect_failure(qwen({"-p", "x"}, {.environment = {"QWEN_DEVICE=gpu"}}), 2,
                 "QWEN_DEVICE is 'gpu'");
}

TEST_F(CliErrors, NamesOfOtherProgramsAreRefusedByName) {
  expect_failure(qwen({"-p", "x", "-ngl", "1"}), 2, "-ngl 1 of 2 layers", "-ngl 0");
  expect_failure(qwen({"-cnv"}), 2, "chat is not built yet", "");
  expect_failure(qwen({"-p", "x", "-fa", "on"}), 2, "--flash-attn");
  expect_failure(qwen({"-p", "x", "--mlock"}), 2, "--mlock");
  expect_failure(qwen({"-p", "x", "--mirostat", "2"}), 2, "--mirostat");
}

TEST_F(CliErrors, Prompts) {
  expect_failure(qwen({}), 2, "the prompt is empty: nothing came from standard input", "-p");
  expect_failure(qwen({"tokenize"}), 2, "the text is empty: nothing came from standard input");
  expect_failure(qwen({}, {.input = "\n"}), 2, "the prompt is empty", "-p");
  expect_failure(qwen({}, {.input_is_terminal = true}), 2, "chat is not built yet", "-p");
  expect_failure(qwen({"-f", path("none.txt")}), 2, "none.txt: No such file");
  expect_failure(qwen({"--raw", "-p", ""}), 2, "the prompt is empty");
  expect_failure(qwen({"--ids", "1,x"}), 2, "--ids is 'x'");
  expect_failure(qwen({"--ids", "1,574"}), 2, "574 is not in the vocabulary of 574 tokens");
  expect_failure(qwen({"--raw", "-p", "\xff"}), 2, "UTF-8");
  expect_failure(qwen({"-p", "\xff"}), 2, "UTF-8");
}

TEST_F(CliErrors, Context) {
  expect_failure(qwen({"-p", "x", "-c", "513"}), 2,
                 "-c 513 is above the 512 tokens that the model was trained for", "-c 512");
  Surroundings with_text;
  for (int i = 0; i < 2000; ++i) with_text.input += "1";
  expect_failure(qwen({"--raw"}, with_text), 5, "the prompt is 2,000 tokens, the context is 512",
                 "shorten");
  expect_failure(qwen({"--raw", "-p", "1234567890", "-c", "10"}), 5,
                 "the prompt is 10 tokens, the context is 10", "-c 512");
  expect_failure(qwen({"score"}, with_text), 5, "the text is 2,000 tokens, the context is 512");
  expect_failure(qwen({"bench", "-p", "600"}), 5, "the runs need 600 tokens, the context is 512");
}

TEST_F(CliErrors, OutOfMemory) {
  write_model("huge.gguf", {.context = 1'000'000'000});
  const Args args = {"-m", path("huge.gguf"), "-p", "x", "-n", "1", "--device", "cpu"};
  Args asked = args;
  asked.insert(asked.end(), {"-c", "900000000"});
  expect_failure(run_program(asked), 4, " GiB of memory (weights 0.006, KV 1716.6, scratch ",
                 "would need");
  // Not asked for: shrunk, and said so.
  const Result shrunk = run_program(args);
  EXPECT_EQ(shrunk.code, 0);
  EXPECT_NE(shrunk.err.find("instead of the trained 1,000,000,000"), std::string::npos)
      << shrunk.err;
}

TEST_F(CliErrors, Devices) {
  const Json cuda = run_program({"devices", "--json"}).json()["devices"][0];
  ASSERT_EQ(cuda["kind"], "cuda");
  if (cuda["usable"].get<bool>()) GTEST_SKIP() << "there is a GPU";
  // The reason is the same everywhere, and nothing falls back.
  const std::string why = cuda["why_not"];
  EXPECT_NE(why, "");
  EXPECT_NE(run_program({"devices"}).out.find("cannot be used: " + why), std::string::npos);
  const Args args = {"-p", "x", "--device", "cuda"};
  expect_failure(qwen(args), 3, "--device cuda: " + why, "--device cpu");
  Args with_json = args;
  with_json.push_back("--json");
  const Result result = qwen(with_json);
  EXPECT_EQ(result.code, 3);
  EXPECT_NE(result.json()["error"]["message"].get<std::string>().find(why), std::string::npos);
  expect_failure(qwen({"bench", "--device", "cuda"}), 3, why);
  expect_failure(qwen({"score", "-p", "x", "--device", "cuda"}), 3, why);
}

TEST_F(CliErrors, EveryBrokenModelIsRefused) {
  for (const fixtures::Breakage& breakage : fixtures::breakages()) {
    const std::string file = path("broken.gguf");
    fixtures::write_file(file, fixtures::broken_model({}, breakage.name));
    SCOPED_TRACE(breakage.name);
    expect_failure(run_program({"-m", file, "-p", "x"}), 3, file, "hint: ");
    const Result json = run_program({"-m", file, "-p", "x", "--json"});
    EXPECT_EQ(json.code, 3);
    const Json error = json.json().value("error", Json::object());
    EXPECT_EQ(error.value("file", ""), file);
    EXPECT_NE(error.value("hint", ""), "");
    EXPECT_TRUE(error.contains("offset") || error.contains("key") || error.contains("tensor"))
        << error;
    if (!breakage.code.empty()) {
      EXPECT_EQ(error.value("code", ""), breakage.code);
    }
  }
}

TEST_F(CliErrors, TheContractsExamples) {
  const auto broken = [&](const char* how, const std::string& text, const std::string& hint = "") {
    const std::string file = path("model.gguf");
    fixtures::write_file(file, fixtures::broken_model({}, how));
    expect_failure(run_program({"-m", file, "-p", "x"}), 3, "error: " + file + text, hint);
  };
  broken("other_arch", ": architecture 'llama' is not supported (qwen2 is)");
  broken("truncated", " is truncated: tensor data ends at ", "download it again");
  broken("wrong_shape", ": blk.0.attn_q.weight: expected shape (256, 256), got (128, 256)");
  broken("missing_tensor", ": blk.1.attn_k.bias: tensor is missing");
}

TEST_F(CliErrors, NoModelFile) {
  write_text("text.gguf", "This is a text file, not a model.\n");
  expect_failure(run_program({path("text.gguf"), "x"}), 3, "text.gguf is not a GGUF file",
                 "hint: ");
  expect_failure(run_program({path("none.gguf"), "x"}), 3, "none.gguf: no such file");
  expect_failure(run_program({"-m", path("."), "-p", "x"}), 3, " is a directory");
}

TEST_F(CliErrors, FilesWithSuggestedValuesOutOfRange) {
  auto writer = fixtures::tiny_model({});
  writer.set("general.sampling.top_p", 1.5f);
  fixtures::write_file(path("top.gguf"), writer.bytes());
  expect_failure(run_program({path("top.gguf"), "x"}), 3, "general.sampling.top_p");
}

TEST_F(CliErrors, AreOneLineWhateverTheNames) {
  const Result result = run_program({"-m", "a\nb\033[31m.gguf", "-p", "x"});
  expect_failure(result, 3, "a b [31m.gguf: no such file");
}

TEST_F(CliErrors, UsageErrorsAsJson) {
  const Result result = qwen({"-p", "x", "--json", "--temp", "hot"});
  EXPECT_EQ(result.code, 2);
  const auto error = result.json()["error"];
  EXPECT_EQ(error["code"], "usage");
  EXPECT_NE(error["message"].get<std::string>().find("--temp is 'hot'"), std::string::npos);
  EXPECT_FALSE(error.contains("file"));
  // The value of an option is no option.
  expect_failure(qwen({"-p", "--json", "--temp", "hot"}), 2, "--temp is 'hot'");
}

TEST_F(CliErrors, UnwritableOutputIsAnError) {
  const std::string command =
      std::string(QWEN_PROGRAM) + " devices >/dev/full 2>" + path("full.txt");
  const int status = std::system(command.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 1);
  std::ifstream file(path("full.txt"));
  std::string line;
  std::getline(file, line);
  EXPECT_EQ(line, "error: cannot write to standard output: No space left on device");
}

TEST_F(CliErrors, Templates) {
  auto writer = fixtures::tiny_model({});
  writer.remove_key("tokenizer.chat_template");
  fixtures::write_file(path("bare.gguf"), writer.bytes());
  expect_failure(run_program({path("bare.gguf"), "x"}), 3, "no chat template", "--raw");
  EXPECT_EQ(run_program({path("bare.gguf"), "x", "--raw", "-n", "1"}).code, 0);
  writer.set("tokenizer.chat_template", std::string("{% for %}"));
  fixtures::write_file(path("bad.gguf"), writer.bytes());
  expect_failure(run_program({path("bad.gguf"), "x"}), 3, "bad.gguf: ");
  expect_failure(qwen({"template"}, {.input = "[{]"}), 2, "no valid JSON: byte 3");
  expect_failure(qwen({"template"}, {.input = "{}"}), 2, "expected a list of messages");
  expect_failure(qwen({"template"}, {.input = std::string(5000, '[')}), 2, "deeper than 64");
}

TEST_F(CliErrors, OneWordCommands) {
  expect_failure(qwen({"detokenize"}), 2, "no ids given");
  expect_failure(qwen({"detokenize", "--ids", "574"}), 2, "574");
  expect_failure(run_program({"completion", "tcsh"}), 2, "unknown shell 'tcsh'");
  expect_failure(run_program({"devices", "x"}), 2, "unexpected argument 'x'");
}

}  // namespace
}  // namespace qwen::testing
