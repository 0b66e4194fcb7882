// The program itself with every malformed file: exit code 3 and an error that a program can read.
#include <gtest/gtest.h>

#include <iterator>
#include <string>
#include <vector>

#include "loader/text.h"
#include "tests/cli_process.h"
#include "tests/hostile_cases.h"

namespace qwen::testing {
namespace {

class HostileCliTest : public CliTest {
 protected:
  // One token after a chat's prompt, so that tokenizer and template are asked, too.
  Result answer(const Bytes& file) {
    fixtures::write_file(path("hostile.gguf"), file);
    return run_program({"run", path("hostile.gguf"), "-p", "hi", "-n", "1", "--temp", "0",
                        "--device", "ref", "--json"});
  }
};

TEST_F(HostileCliTest, EveryCaseEndsInExitCode3) {
  for (const HostileCase& c : hostile_cases()) {
    SCOPED_TRACE(std::to_string(c.number) + " " + c.name);
    const Result result = answer(c.file());
    EXPECT_EQ(result.code, 3) << result.err;
    const Json json = Json::parse(result.out, nullptr, false);
    ASSERT_TRUE(json.is_object()) << result.out;
    const Json& error = json.at("error");
    // An empty file is refused before it is read.
    EXPECT_EQ(error.value("code", ""), c.name == "empty" ? "empty_file" : c.code);
    EXPECT_EQ(error.value("file", ""), path("hostile.gguf"));
    EXPECT_TRUE(error.contains("offset") || error.contains("key") || error.contains("tensor"));
  }
}

TEST_F(HostileCliTest, EveryControlIsRun) {
  for (const ValidCase& c : valid_cases()) {
    // Without a vocabulary or template there is no chat; without numbers no answer.
    if (c.name == "no_vocabulary" || c.name == "no_template" || c.name == "scale_not_a_number") {
      continue;
    }
    const Result result = answer(c.file());
    EXPECT_EQ(result.code, 0) << c.name << ": " << result.err << result.out;
  }
}

// By its place in the file each, not by a search for each among all before it.
TEST_F(HostileCliTest, EveryKeyIsInspected) {
  constexpr std::size_t kKeys = 3000;
  GgufWriter w = valid_model();
  const std::size_t n_before = w.pairs.size();
  add_tiny_keys(w, kKeys);
  fixtures::write_file(path("keys.gguf"), w.bytes());
  const Json json = run_program({"inspect", path("keys.gguf"), "--json"}).json();
  const Json& metadata = json.at("metadata");
  ASSERT_EQ(metadata.size(), n_before + kKeys);
  EXPECT_TRUE(metadata.contains("general.architecture"));
  EXPECT_EQ(std::next(metadata.begin(), static_cast<std::ptrdiff_t>(n_before)).key(), "0");
  EXPECT_EQ(std::prev(metadata.end()).key(), "2999");
}

// What a terminal would obey: colours, its title, the C1 form of ESC [.
TEST_F(HostileCliTest, NothingOfAFileActsOnATerminal) {
  const std::string text = "a\x1b[31mb\x1b]0;title\x07\u009b2J\x7f\xff";
  GgufWriter w = valid_model();
  for (const char* key : {"general.name", "general.architecture", "general.description"}) {
    w.set(key, text);
  }
  w.set_array("x.texts", std::vector<std::string>{"\u6f22", text});
  fixtures::write_file(path("control.gguf"), w.bytes());
  for (const char* option : {"--scan", "--full"}) {
    std::string out = run_program({"inspect", path("control.gguf"), option}).out;
    EXPECT_NE(out.find("name        a\\x1b[31mb"), out.npos) << out;
    std::erase(out, '\n');
    EXPECT_TRUE(is_plain_text(out)) << out;
  }
}

// Case 97.
TEST_F(HostileCliTest, AScanIsForWhoAsksForIt) {
  for (const ValidCase& c : valid_cases()) {
    if (c.name != "scale_not_a_number") continue;
    fixtures::write_file(path("nan.gguf"), c.file());
    EXPECT_EQ(run_program({"inspect", path("nan.gguf")}).code, 0);
    const Result result = run_program({"inspect", path("nan.gguf"), "--scan", "--json"});
    EXPECT_EQ(result.code, 3);
    EXPECT_EQ(result.json()["error"]["tensor"], "blk.0.attn_q.weight");
  }
  EXPECT_EQ(run_program({"inspect", model(), "--scan"}).code, 0);
}

}  // namespace
}  // namespace qwen::testing
