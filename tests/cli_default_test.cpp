// The model that is part of the program, on the command line: without a model, and as `default`.
#include "tests/cli_process.h"

namespace qwen::testing {
namespace {

const std::string kNote = "no model given";

std::int64_t lines_with(const std::string& text, const std::string& what) {
  std::int64_t n = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

// Runs it greedily for a few tokens; its note on standard error comes just when it is due.
Json answered(Args args, bool note, const Surroundings& setup = {}) {
  args.insert(args.end(), {"--json", "--temp", "0", "-n", "4", "--device", "cpu"});
  const Result result = run_program(args, setup);
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(lines_with(result.err, kNote), note ? 1 : 0) << result.err;
  return result.json();
}

TEST(CliDefault, WaysToGetIt) {
  const Json expected = answered({"-m", "default", "-p", "Who are you?"}, false)["prompt"]["ids"];
  EXPECT_GT(expected.size(), 10u);
  const auto ids = [](const Args& args, bool note, const Surroundings& setup = {}) {
    return answered(args, note, setup)["prompt"]["ids"];
  };
  EXPECT_EQ(ids({"Who are you?"}, true), expected);
  EXPECT_EQ(ids({"run", "Who are you?"}, true), expected);
  EXPECT_EQ(ids({"-p", "Who are you?"}, true), expected);
  EXPECT_EQ(ids({}, true, {.input = "Who are you?\n"}), expected);
  EXPECT_EQ(ids({"default", "Who are you?"}, false), expected);
  EXPECT_EQ(ids({"run", "default", "-p", "Who are you?"}, false), expected);
  EXPECT_EQ(ids({"Who are you?"}, false, {.environment = {"QWEN_MODEL=default"}}), expected);
  const Result quiet = run_program({"Who are you?", "-q", "--device", "cpu"});
  EXPECT_EQ(quiet.code, 0);
  EXPECT_EQ(quiet.err, "");
}

// An argument that was meant as a text or left empty: never the default model without a word.
TEST(CliDefault, WhatNamesNoModel) {
  for (const Args& args : {Args{"-m", "", "Who are you?"}, {""}, {"inspect", ""}}) {
    expect_failure(run_program(args), 2, "the name of the model is empty",
                   "-m FILE.gguf names one");
  }
  for (const char* text : {"none.gguf", "What is none.gguf", "hello"}) {
    expect_failure(run_program({text}), 3, std::string(text) + ": no such file",
                   "check the path; a prompt goes after -p");
  }
  expect_failure(run_program({"."}), 3, ". is a directory", "give the path of a .gguf file");
  expect_failure(run_program({"-m", "none", "Who are you?"}), 3, "none: no such file",
                 "hint: check the path\n");
}

TEST(CliDefault, AnswersAboutItself) {
  const auto says = [](const std::string& question, const std::string& what) {
    const Result result = run_program({"default", question, "--temp", "0"});
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_NE(result.out.find(what), std::string::npos) << question << ": " << result.out;
    EXPECT_LT(result.out.size(), 160u) << result.out;
  };
  says("Who are you?", "the small model that ships inside qwen");
  says("What is cross-check?", "says whether they agree, and if not, where and why");
  says("How do I use my GPU?", "--device cuda");
  says("qwpoeri zmxnc gjdk", "I am a very small model");
  says("What is the capital of Mongolia?", "I am a very small model");
}

TEST(CliDefault, EveryCommandTakesIt) {
  const auto done = [](const Args& args, const Surroundings& setup = {}) {
    const Result result = run_program(args, setup);
    EXPECT_EQ(result.code, 0) << args[0] << ": " << result.err;
    EXPECT_EQ(lines_with(result.err, kNote), 0) << result.err;
    return result.out;
  };
  const std::string messages = R"([{"role": "user", "content": "hi"}])";
  EXPECT_NE(done({"inspect", "default"}).find("qwen default model"), std::string::npos);
  std::string id = done({"tokenize", "default", "-p", "x"});
  id.pop_back();
  EXPECT_EQ(done({"detokenize", "default", "--ids", id}), "x");
  EXPECT_NE(done({"template", "default"}, {.input = messages}).find("<|im_start|>user\nhi"),
            std::string::npos);
  EXPECT_NE(done({"score", "default", "-p", "the sea", "--device", "cpu"}), "");
  EXPECT_NE(
      done({"bench", "default", "-p", "8", "-d", "0", "-n", "1", "-r", "1", "--device", "cpu"}),
      "");
  const std::string report =
      done({"cross-check", "default", "--device", "cpu", "-p", "Who are you?", "-n", "2"});
  EXPECT_NE(report.find("PASS"), std::string::npos) << report;
  // Without any model, too.
  const Result result = run_program({"inspect"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(lines_with(result.err, kNote), 1) << result.err;
}

}  // namespace
}  // namespace qwen::testing
