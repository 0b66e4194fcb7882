// What a command reads from strangers: JSON that is made to be slow, and a model file that changes
// after it was opened.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/error_of.h"
#include "tests/hostile_cases.h"
#include "tests/unnamed_file.h"
#include "tools/qwen/chat_prompt.h"
#include "tools/qwen/json_input.h"
#include "tools/qwen/opened_model.h"

namespace qwen::testing {
namespace {

using Json = nlohmann::ordered_json;

std::string object_of(std::size_t n_keys) {
  std::string text = "{";
  for (std::size_t i = 0; i < n_keys; ++i) {
    text += (i > 0 ? ",\"" : "\"") + std::to_string(i) + "\":0";
  }
  return text + "}";
}

ErrorInfo refusal(const std::string& text) {
  return error_of([&] { cli::parse_json_list(text, "input", "messages"); });
}

// An object looks through its keys for each new one: a million would take hours.
TEST(JsonInput, AnObjectHasAtMostSoManyKeys) {
  const std::string most = object_of(cli::kMaxJsonKeys), more = object_of(cli::kMaxJsonKeys + 1);
  EXPECT_EQ(cli::parse_json_list("[" + most + "," + most + "]", "input", "messages")[1].size(),
            cli::kMaxJsonKeys);
  for (const std::string& text : {"[" + more + "]", "[{\"a\":" + more + "}]",
                                  "[{\"a\":{},\"b\":[" + most + "]}," + more + "]"}) {
    const ErrorInfo e = refusal(text);
    EXPECT_EQ(e.exit, Exit::kUsage);
    EXPECT_EQ(e.message, "input: a JSON object of more than 4096 keys");
  }
  std::string repeated = "[{\"a\":0";
  for (std::size_t i = 0; i < cli::kMaxJsonKeys; ++i) repeated += ",\"a\":0";
  EXPECT_EQ(refusal(repeated + "}]").message, "input: a JSON object of more than 4096 keys");
}

TEST(JsonInput, IsNestedAtMostSoDeep) {
  const auto nested = [](int depth, const std::string& innermost) {
    return std::string(depth - 1, '[') + innermost + std::string(depth - 1, ']');
  };
  for (const char* innermost : {"[]", "{}", "[0]"}) {
    EXPECT_EQ(refusal(nested(cli::kMaxJsonDepth, innermost)).code, "") << innermost;
    EXPECT_EQ(refusal(nested(cli::kMaxJsonDepth + 1, innermost)).message,
              "input: JSON deeper than 64 levels")
        << innermost;
  }
}

// A list that is looked through for each object in it would take longer than any test may.
TEST(JsonInput, AListMayHaveManyObjects) {
  constexpr std::size_t kObjects = 2'000'000;
  std::string text = "[{}";
  for (std::size_t i = 1; i < kObjects; ++i) text += ",{}";
  EXPECT_EQ(cli::parse_json_list(text + "]", "input", "messages").size(), kObjects);
}

TEST(JsonInput, ThatIsNoneIsNamedByItsPlace) {
  EXPECT_EQ(refusal("[{},").message, "input is no valid JSON: byte 5");
  EXPECT_EQ(refusal("[1e999]").message, "input has a number that is too large for a 64-bit float");
}

class Changed : public ::testing::Test {
 protected:
  const UnnamedFile file_{valid_model().bytes()};
  cli::Console console_;
  cli::OpenedModel model_{file_.path(), console_};

  template <class Action>
  static std::string code(const Action& action) {
    return error_of(action).code;
  }
  ErrorInfo render() {
    const Json messages = {{{"role", "user"}, {"content", "hi"}}};
    return error_of([&] { cli::render_chat(model_, messages, nullptr, true); });
  }
};

TEST_F(Changed, NothingIsReadOfAFileThatWasTouched) {
  EXPECT_FALSE(model_.name().empty() && model_.arch().empty());
  file_.touch();
  EXPECT_EQ(code([&] { model_.tokenizer_data(); }), "file_changed");
  EXPECT_EQ(render().code, "file_changed");
  EXPECT_EQ(code([&] { cli::OpenedModel(file_.path(), console_); }), "");  // this one is new
}

TEST_F(Changed, TheTokensAreCheckedAfterTheyWereRead) {
  model_.tokenizer_data();
  file_.touch();
  const ErrorInfo e = error_of([&] { model_.tokenizer(); });
  EXPECT_EQ(e.code, "file_changed");
  EXPECT_EQ(e.file, file_.path());
}

TEST_F(Changed, TheTemplateIsCheckedAfterItWasRead) {
  EXPECT_EQ(render().code, "");
  file_.touch();
  EXPECT_EQ(render().code, "file_changed");
  EXPECT_EQ(code([&] { model_.stop_ids(); }), "file_changed");
}

}  // namespace
}  // namespace qwen::testing
