// The parts of the command line that need no process: stop strings, suggestions, options, and the
// ids of rendered chats.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/stop_filter.h"
#include "tests/fixtures/tiny_vocabulary.h"
#include "tools/qwen/chat_prompt.h"
#include "tools/qwen/format.h"
#include "tools/qwen/numbers.h"
#include "tools/qwen/suggest.h"

namespace qwen::cli {
namespace {

std::string filtered(const std::vector<std::string>& stops,
                     const std::vector<std::string>& pieces) {
  StopFilter filter(stops);
  std::string out;
  for (const std::string& piece : pieces) out += filter.push(piece);
  return out + filter.finish();
}

TEST(StopFilter, FindsAcrossPieces) {
  EXPECT_EQ(filtered({"STOP"}, {"abcS", "T", "OPdef", "ghi"}), "abc");
  EXPECT_EQ(filtered({"STOP"}, {"abcS", "T", "Odef"}), "abcSTOdef");
  EXPECT_EQ(filtered({"aab"}, {"a", "a", "a", "b", "c"}), "a");
  EXPECT_EQ(filtered({}, {"ab", "c"}), "abc");
}

TEST(StopFilter, FirstToEndWinsTheLongestOfThose) {
  EXPECT_EQ(filtered({"bc", "abc"}, {"xabcd"}), "x");
  EXPECT_EQ(filtered({"abcd", "b"}, {"xabcd"}), "xa");
}

TEST(StopFilter, HoldsBackNoMoreThanNeeded) {
  StopFilter filter({"\n\n", "END"});
  EXPECT_EQ(filter.push("a\n"), "a");
  EXPECT_EQ(filter.push("b"), "\nb");
  EXPECT_EQ(filter.push("EN"), "");
  EXPECT_FALSE(filter.stopped());
  EXPECT_EQ(filter.push("D"), "");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.push("more"), "");
  EXPECT_EQ(filter.finish(), "");
}

TEST(StopFilter, SameForEveryCut) {
  const std::string text = "to be or not to be, that is the question";
  const std::vector<std::string> stops = {"be, t", "not to", "question?"};
  const std::string whole = filtered(stops, {text});
  EXPECT_EQ(whole, "to be or ");
  for (std::size_t a = 0; a <= text.size(); ++a) {
    for (std::size_t b = a; b <= text.size(); ++b) {
      EXPECT_EQ(filtered(stops, {text.substr(0, a), text.substr(a, b - a), text.substr(b)}), whole);
    }
  }
}

TEST(Suggest, Distance) {
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("tmep", "temp"), 1u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  const std::vector<std::string> known = {"--temp", "--top-k", "--top-p"};
  EXPECT_EQ(nearest("--tmep", known), "--temp");
  EXPECT_EQ(nearest("--topk", known), "--top-k");
  EXPECT_EQ(nearest("--zzzzzz", known), "");
}

TEST(Numbers, RangesAndForms) {
  EXPECT_EQ(parse_integer("-n", "-1", {-1, 10}), -1);
  EXPECT_EQ(parse_integer("-n", "+7", {-1, 10}), 7);
  EXPECT_DOUBLE_EQ(parse_real("--temp", "1e-1", {0, 2}), 0.1);
  for (const char* wrong : {"", " 1", "1x", "0x1", "11", "-2", "1.5", "99999999999999999999"}) {
    EXPECT_THROW(parse_integer("-n", wrong, {-1, 10}), Error) << wrong;
  }
  for (const char* wrong : {"", "nan", "inf", "-inf", "2.1", "-0.1", "1,5", "0x1p3", "1e999"}) {
    EXPECT_THROW(parse_real("--temp", wrong, {0, 2}), Error) << wrong;
  }
  for (const char* wrong : {"0", "-1", "1e-60"}) {  // the last is zero as a float
    EXPECT_THROW(parse_real("--top-p", wrong, {0, 1, true}), Error) << wrong;
  }
  EXPECT_EQ(parse_integers("--ids", "1, 2,3", {0, 9}), (std::vector<std::int64_t>{1, 2, 3}));
  for (const char* wrong : {"", "1,", ",1", "1,,2", "1 2", "[1]"}) {
    EXPECT_THROW(parse_integers("--ids", wrong, {0, 9}), Error) << wrong;
  }
}

TEST(Format, Numbers) {
  EXPECT_EQ(thousands(0), "0");
  EXPECT_EQ(thousands(999), "999");
  EXPECT_EQ(thousands(1000), "1,000");
  EXPECT_EQ(thousands(-1234567), "-1,234,567");
  EXPECT_EQ(rate(3100.4), "3,100");
  EXPECT_EQ(rate(31.04), "31.0");
  EXPECT_EQ(bytes_text(std::uint64_t{1} << 30), "1.00 GiB");
}

// The tiny vocabulary, with what its views point to.
struct TinyTokenizer {
  fixtures::TinyVocabulary vocabulary = fixtures::tiny_vocabulary();
  Tokenizer tokenizer{Vocabulary{{vocabulary.tokens.begin(), vocabulary.tokens.end()},
                                 vocabulary.types,
                                 {vocabulary.merges.begin(), vocabulary.merges.end()}}};
};

TEST(EncodeSegments, MarkupCountsInTheTemplateOnly) {
  const TinyTokenizer tiny;
  const Tokenizer& t = tiny.tokenizer;
  const std::string content = "the <|im_end|> of <tool_call> it";
  const std::vector<Segment> segments = {
      {"<|im_start|>user\n", true}, {content, false}, {"<|im_end|>\n<tool_call>the", true}};
  std::vector<std::int32_t> expected = {*t.find("<|im_start|>")};
  t.encode("user\n" + content, Specials::kNone, expected);
  expected.push_back(*t.find("<|im_end|>"));
  t.encode("\n", Specials::kNone, expected);
  expected.push_back(*t.find("<tool_call>"));
  t.encode("the", Specials::kNone, expected);
  EXPECT_EQ(encode_segments(t, segments), expected);
}

TEST(EncodeSegments, MarkupDoesNotArisePiecewise) {
  const TinyTokenizer tiny;
  const std::vector<Segment> segments = {{"<|im_", true}, {"end|>", false}};
  EXPECT_EQ(encode_segments(tiny.tokenizer, segments),
            tiny.tokenizer.encode("<|im_end|>", Specials::kNone));
}

TEST(EncodeSegments, TextBetweenMarkupIsOneStretch) {
  const TinyTokenizer tiny;
  const Tokenizer& t = tiny.tokenizer;
  // A word, and a letter with its accent, begun by the template and ended by the message.
  for (const auto& [first, second] : {std::pair{"peo", "ple"}, std::pair{"caf\u0065", "\u0301"}}) {
    const std::vector<Segment> segments = {{first, true}, {second, false}};
    EXPECT_EQ(encode_segments(t, segments), t.encode(std::string(first) + second, Specials::kNone));
  }
}

TEST(EncodeSegments, GoldenChats) {
  const char* model = std::getenv("QWEN_REAL_MODEL");
  if (model == nullptr) GTEST_SKIP() << "set QWEN_REAL_MODEL to the file of tests/golden/README.md";
  Console console;
  OpenedModel opened(model, console);
  std::ifstream file(std::string(QWEN_GOLDEN_DIR) + "/chat_template.jsonl");
  int cases = 0;
  int with_markup = 0;
  for (std::string line; std::getline(file, line); ++cases) {
    const Json golden = Json::parse(line);
    const Rendered rendered = render_chat(opened, golden["messages"], golden["tools"],
                                          golden["add_generation_prompt"].get<bool>());
    EXPECT_EQ(rendered.text(), golden["rendered"].get<std::string>());
    const auto ids = encode_segments(opened.tokenizer(), rendered.segments);
    // The reference takes markup in a message for markup. We must not: there the ids differ, but
    // the text that they stand for is the same.
    if (golden["messages"].dump().find("<|") != std::string::npos) {
      ++with_markup;
      EXPECT_NE(Json(ids), golden["ids"]);
      EXPECT_EQ(opened.tokenizer().decode(ids), rendered.text());
    } else {
      EXPECT_EQ(Json(ids), golden["ids"]) << rendered.text();
    }
  }
  EXPECT_EQ(cases, 25);
  EXPECT_EQ(with_markup, 1);
}

}  // namespace
}  // namespace qwen::cli
