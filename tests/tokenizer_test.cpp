// The tokenizer with small vocabularies made here: no model is needed.
#include "core/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/tokenizer/stream_decoder.h"
#include "core/tokenizer/utf8.h"
#include "tests/error_of.h"
#include "tests/vocabulary_builder.h"

namespace qwen {
namespace {

TEST(Utf8, FindsTheFirstInvalidByte) {
  const std::vector<std::pair<std::string, std::size_t>> invalid = {
      {"\xFF", 0},
      {"0123456789\x80", 10},
      {"a\xC0\x80", 1},
      {"\xED\xA0\x80", 0},
      {"\xF4\x90\x80\x80", 0},
      {"\xE0\x9F\xBF", 0},
      {"\xC3\xA9\xE4\xB8", 2},
      {"\xF0\x8F\xBF\xBF", 0},
      {"ab\xF5\x80\x80\x80", 2},
  };
  const VocabularyBuilder builder;
  const Tokenizer tokenizer(builder.vocabulary());
  for (const auto& [text, offset] : invalid) {
    EXPECT_EQ(find_invalid_utf8(text), offset);
    try {
      tokenizer.encode(text, Specials::kNone);
      ADD_FAILURE() << "accepted invalid UTF-8";
    } catch (const Error& error) {
      EXPECT_EQ(error.info().exit, Exit::kUsage);
      EXPECT_EQ(error.info().code, "invalid_utf8");
      EXPECT_NE(error.info().message.find("byte " + std::to_string(offset) + " "),
                std::string::npos)
          << error.what();
    }
  }
}

struct SpecialsTest : testing::Test {
  SpecialsTest() {
    builder.merge("<", "|")
        .merge("e", "n")

        .add("<|end|>", TokenType::kControl);
    builder.add("<|end|>>", TokenType::kControl);
    builder.add("<call>", TokenType::kUserDefined);
    builder.add("\u00E9!", TokenType::kControl);
    builder.add("[PAD]", TokenType::kUnused);
  }
  VocabularyBuilder builder;
};

TEST_F(SpecialsTest, EachModeCountsItsOwn) {
  const Tokenizer t(builder.vocabulary());
  const std::string text = "x<|end|><call>[PAD]";
  EXPECT_EQ(pieces(t, text, Specials::kAll), "x|<|end|>|<call>|[|P|A|D|]");
  EXPECT_EQ(pieces(t, text, Specials::kUserDefined), "x|<||en|d|||>|<call>|[|P|A|D|]");
  EXPECT_EQ(pieces(t, text, Specials::kNone), "x|<||en|d|||>|<|c|a|l|l|>|[|P|A|D|]");
  for (const std::int32_t id : t.encode(text, Specials::kNone)) {
    EXPECT_EQ(t.type(id), TokenType::kNormal);
  }
}

TEST_F(SpecialsTest, LeftmostLongest) {
  const Tokenizer t(builder.vocabulary());
  EXPECT_EQ(pieces(t, "<|end|>>", Specials::kAll), "<|end|>>");
  EXPECT_EQ(pieces(t, "<|end|>x>", Specials::kAll), "<|end|>|x|>");
  EXPECT_EQ(pieces(t, "<<|end|><|end|>", Specials::kAll), "<|<|end|>|<|end|>");
  EXPECT_EQ(pieces(t, "<|end", Specials::kAll), "<||en|d");
}

TEST_F(SpecialsTest, FoundBeforeNormalisation) {
  const Tokenizer t(builder.vocabulary());
  EXPECT_EQ(pieces(t, "\u00E9!", Specials::kAll), "\u00E9!");
  EXPECT_EQ(t.encode("e\u0301!", Specials::kAll), (Ids{0xC3, 0xA9, '!'}));
  // No composition across a special token.
  EXPECT_EQ(t.encode("e<call>\u0301", Specials::kAll), (Ids{'e', *t.find("<call>"), 0xCC, 0x81}));
}

TEST_F(SpecialsTest, TheLongestIsFound) {
  const std::string longest(SpecialTokens::kMaxTokenBytes, 'a');
  const std::int32_t id = builder.add(longest, TokenType::kControl);
  builder.add(longest + "a", TokenType::kUnused);
  builder.add(longest + "aa");
  const Tokenizer t(builder.vocabulary());
  EXPECT_EQ(t.encode(longest + "a", Specials::kAll), (Ids{id, 'a'}));
}

// They are kept in a trie, which is much larger than they are.
TEST(Tokenizer, AllSpecialTokensTogetherHaveALimit) {
  constexpr std::size_t kEach = SpecialTokens::kMaxTokenBytes;
  VocabularyBuilder builder;
  const auto add = [&](std::size_t n_tokens) {
    for (std::size_t i = 0; i < n_tokens; ++i) {
      std::string text = std::to_string(builder.tokens.size());
      text.resize(kEach, ' ');
      builder.add(text, i % 2 == 0 ? TokenType::kControl : TokenType::kUserDefined);
    }
    return error_of([&] { Tokenizer{builder.vocabulary()}; });
  };
  EXPECT_EQ(add(SpecialTokens::kMaxNodes / kEach).code, "");
  // Their numbers, of four digits, are alike in three at most.
  const ErrorInfo e = add(SpecialTokens::kMaxNodes / kEach * 4 / kEach);
  EXPECT_EQ(e.code, "too_many_special_tokens");
  EXPECT_NE(e.message.find("have more than 2097152 different bytes"), e.message.npos) << e.message;
}

TEST(Tokenizer, NormalisesBeforeMerging) {
  VocabularyBuilder builder;
  builder.merge("\xC3", "\xA9").merge("f", "\u00E9");
  const Tokenizer t(builder.vocabulary());
  EXPECT_EQ(pieces(t, "cafe\u0301"), "c|a|f\u00E9");
  EXPECT_EQ(t.encode("cafe\u0301", Specials::kNone), t.encode("caf\u00E9", Specials::kNone));
}

TEST(Tokenizer, NeverMergesAcrossPieces) {
  VocabularyBuilder builder;
  builder.merge("1", "2").merge("a", " ").merge(" ", "b");
  EXPECT_EQ(pieces(Tokenizer(builder.vocabulary()), "12a b"), "1|2|a| b");
}

TEST(Tokenizer, DecodesWhatItEncodes) {
  VocabularyBuilder builder;
  builder.merge("t", "h").merge("th", "e").merge(" ", "the").merge("\n", "\n");
  const Tokenizer t(builder.vocabulary());
  for (const std::string text :
       {"", "the the", " \n\n\t", "\u4E2D\u6587 \U0001F600", "\r\n'll 42"}) {
    for (const auto mode : {Specials::kNone, Specials::kUserDefined, Specials::kAll}) {
      EXPECT_EQ(t.decode(t.encode(text, mode)), text);
    }
  }
  const std::string with_zero("a\0b", 3);
  EXPECT_EQ(t.decode(t.encode(with_zero, Specials::kNone)), with_zero);
  Ids out = {5};
  t.encode("the", Specials::kNone, out);
  EXPECT_EQ(out, (Ids{5, *t.find("the")}));
}

TEST(Tokenizer, LooksUpAndRefusesIds) {
  VocabularyBuilder builder;
  builder.merge(" ", "a").add("<|end|>", TokenType::kControl);
  const Tokenizer t(builder.vocabulary());
  EXPECT_EQ(t.size(), 258);
  EXPECT_EQ(t.find("<|end|>"), 257);
  EXPECT_EQ(t.find("\u0120a"), 256);
  EXPECT_EQ(t.find(" a"), std::nullopt);
  EXPECT_EQ(t.find(""), std::nullopt);
  EXPECT_EQ(t.piece(256), " a");
  EXPECT_EQ(t.piece(0xFF), "\xFF");
  EXPECT_EQ(t.type(257), TokenType::kControl);
  for (const std::int32_t id : {-1, 258}) {
    EXPECT_THROW(t.piece(id), Error);
    EXPECT_THROW(t.type(id), Error);
    EXPECT_THROW(t.decode(Ids{id}), Error);
  }
}

TEST(Tokenizer, ThreadsAgree) {
  VocabularyBuilder builder;
  builder.merge("t", "h").merge("th", "e");
  const Tokenizer t(builder.vocabulary());
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "the then \u00E9 thththethe" + std::string(300, 't');
  const Ids expected = t.encode(text, Specials::kAll);
  std::array<Ids, 4> got;
  std::vector<std::jthread> threads;
  for (auto& ids : got) threads.emplace_back([&] { ids = t.encode(text, Specials::kAll); });
  threads.clear();
  for (const auto& ids : got) EXPECT_EQ(ids, expected);
}

// What was quadratic, or ran into a limit, somewhere: completes, and comes back.
TEST(Tokenizer, TwentyMegabytesOfOneCharacter) {
  VocabularyBuilder builder;
  for (const std::string c : {"a", " ", "\n", "7", "."}) {
    for (std::string run = c; run.size() < 64; run += run) builder.merge(run, run);
  }
  const Tokenizer t(builder.vocabulary());
  constexpr std::size_t kBytes = 20'000'000;
  for (const char c : {'a', ' ', '\n', '7', '.'}) {
    const std::string text(kBytes, c);
    const Ids ids = t.encode(text, Specials::kAll);
    EXPECT_EQ(ids.size(), c == '7' ? kBytes : kBytes / 64) << c;
    EXPECT_TRUE(t.decode(ids) == text) << c;
  }
}

std::string streamed(const Tokenizer& t, const Ids& ids) {
  StreamDecoder stream(t);
  std::string parts;
  for (const std::int32_t id : ids) parts += stream.push(id) + "/";
  return parts + stream.finish();
}

TEST(StreamDecoder, HoldsBackIncompleteCharacters) {
  VocabularyBuilder builder;
  builder.merge("\x9F", "\x98").merge("\x80", "!");
  const Tokenizer t(builder.vocabulary());
  EXPECT_EQ(streamed(t, {'a', 0xF0, 256, 257, 'b'}), "a///\U0001F600!/b/");
  EXPECT_EQ(streamed(t, {0xC3, 0xA9}), "/\u00E9/");
}

TEST(StreamDecoder, ReplacesWhatIsCertainlyInvalid) {
  const VocabularyBuilder builder;
  const Tokenizer t(builder.vocabulary());
  EXPECT_EQ(streamed(t, {0xFF, 'a'}), "\uFFFD/a/");
  EXPECT_EQ(streamed(t, {0x80}), "\uFFFD/");
  EXPECT_EQ(streamed(t, {0xE2, 0x82, 'a'}), "//\uFFFDa/");
  EXPECT_EQ(streamed(t, {0xE2, 0xC3, 0xA9}), "/\uFFFD/\u00E9/");
  EXPECT_EQ(streamed(t, {0xED, 0xA0, 0x80}), "/\uFFFD\uFFFD/\uFFFD/");  // a surrogate
  EXPECT_EQ(streamed(t, {0xF0, 0x9F, 0x98}), "///\uFFFD");
  StreamDecoder stream(t);
  stream.push(0xF0);
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.push('a') + stream.finish(), "a");
}

TEST(Vocabulary, RefusesWhatIsMalformed) {
  struct Case {
    std::string code;
    std::string key;
    std::string names;  // what the message must name
    std::function<void(VocabularyBuilder&)> damage;
  };
  const std::string tokens = "tokenizer.ggml.tokens", types = "tokenizer.ggml.token_type",
                    merges = "tokenizer.ggml.merges";
  const std::vector<Case> cases = {
      {"bad_merge", merges, "merge 1 ", [](VocabularyBuilder& b) { b.merges.push_back("ab"); }},
      {"bad_merge", merges, "merge 1 ", [](VocabularyBuilder& b) { b.merges.push_back(""); }},
      {"bad_merge", merges, "merge 1 ", [](VocabularyBuilder& b) { b.merges.push_back(" a"); }},
      {"bad_merge", merges, "merge 1 ", [](VocabularyBuilder& b) { b.merges.push_back("a "); }},
      {"bad_merge", merges, "merge 1 ", [](VocabularyBuilder& b) { b.merges.push_back("a b c"); }},
      {"unknown_token_in_merge", merges, "\"zz\" is not",
       [](VocabularyBuilder& b) { b.merges.push_back("zz a"); }},
      {"unknown_token_in_merge", merges, "\"zz\" is not",
       [](VocabularyBuilder& b) { b.merges.push_back("a zz"); }},
      {"unknown_token_in_merge", merges, "its result",
       [](VocabularyBuilder& b) { b.merges.push_back("a z"); }},
      {"unknown_token_in_merge", merges, "merge 1 ",  // the first of two
       [](VocabularyBuilder& b) {
         b.merges.insert(b.merges.end(), {"a zz", "broken"});
       }},
      {"duplicate_merge", merges, "merge 1 \"a b\"",
       [](VocabularyBuilder& b) { b.merge("a", "b"); }},
      {"special_token_in_merge", merges, "merge 1 ",
       [](VocabularyBuilder& b) { b.add("<>", TokenType::kControl), b.merges.push_back("< >"); }},
      {"special_token_in_merge", merges, "merge 1 ",
       [](VocabularyBuilder& b) {
         b.add("<>", TokenType::kUserDefined), b.merges.push_back("< >");
       }},
      {"duplicate_token", tokens, "token 257 \"ab\" is the same as token 256",
       [](VocabularyBuilder& b) { b.add("ab"); }},
      {"empty_token", tokens, "token 257 ",
       [](VocabularyBuilder& b) { b.add("", TokenType::kControl); }},
      {"special_token_too_long", tokens, ": a control or user-defined token of 257 bytes",
       [](VocabularyBuilder& b) { b.add(std::string(257, 'x'), TokenType::kControl); }},
      {"special_token_too_long", tokens, "token 257 \"xxx",
       [](VocabularyBuilder& b) { b.add(std::string(257, 'x'), TokenType::kUserDefined); }},
      {"token_type_count", types, "expected 257 types",
       [](VocabularyBuilder& b) { b.types.pop_back(); }},
      {"bad_token_type", types, "token 256 ", [](VocabularyBuilder& b) { b.types.back() = 6; }},
      {"bad_token_type", types, "got 0", [](VocabularyBuilder& b) { b.types.back() = 0; }},
      {"missing_byte_token", tokens,
       "the byte 10:", [](VocabularyBuilder& b) { b.tokens[10] = "xyz"; }},
      {"missing_byte_token", tokens,
       "the byte 200:", [](VocabularyBuilder& b) { b.types[200] = 3; }},
      {"not_in_byte_alphabet", tokens, "token 257 ", [](VocabularyBuilder& b) { b.add("a b"); }},
      {"not_in_byte_alphabet", tokens, "at byte 1 ",
       [](VocabularyBuilder& b) { b.add("a\u4E2D"); }},
      {"not_in_byte_alphabet", tokens, "at byte 1 ",
       [](VocabularyBuilder& b) { b.add("a\u0144"); }},
      {"not_in_byte_alphabet", tokens, "at byte 1 ", [](VocabularyBuilder& b) { b.add("a\xC4"); }},
      {"not_in_byte_alphabet", tokens, "at byte 0 ", [](VocabularyBuilder& b) { b.add("\xC4z"); }},
  };
  for (const Case& c : cases) {
    VocabularyBuilder builder;
    builder.merge("a", "b");
    EXPECT_NO_THROW(Tokenizer{builder.vocabulary()});
    c.damage(builder);
    try {
      const Tokenizer t(builder.vocabulary());
      ADD_FAILURE() << "accepted: " << c.code;
    } catch (const Error& error) {
      EXPECT_EQ(error.info().exit, Exit::kModel);
      EXPECT_EQ(error.info().code, c.code);
      EXPECT_EQ(error.info().key, c.key);
      EXPECT_NE(error.info().message.find(c.names), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace qwen
