// The tokenizer with the real model's vocabulary, against the reference answers in golden/. Every
// case must agree exactly: there is no tolerance.
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/tokenizer/stream_decoder.h"
#include "core/tokenizer/tokenizer.h"
#include "core/tokenizer/utf8.h"
#include "tests/real_vocabulary.h"

namespace qwen {
namespace {

using nlohmann::json;

std::vector<json> golden(const std::string& name) {
  std::ifstream in(std::string(QWEN_GOLDEN_DIR) + "/" + name);
  EXPECT_TRUE(in) << name;
  std::vector<json> cases;
  for (std::string line; std::getline(in, line);) cases.push_back(json::parse(line));
  return cases;
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

class TokenizerGolden : public testing::Test {
 protected:
  void SetUp() override {
    real_ = load_real_vocabulary();
    if (!real_) GTEST_SKIP() << "needs the real model: set QWEN_REAL_MODEL to its GGUF file";
    tokenizer_.emplace(real_->vocabulary);
  }

  std::optional<RealVocabulary> real_;
  std::optional<Tokenizer> tokenizer_;
};

TEST_F(TokenizerGolden, EncodesAsTheReference) {
  int n = 0;
  for (const json& c : golden("tokenizer.jsonl")) {
    const auto specials = c.at("special").get<bool>() ? Specials::kAll : Specials::kUserDefined;
    const std::string text = c.at("text");
    EXPECT_EQ(tokenizer_->encode(text, specials), c.at("ids").get<std::vector<std::int32_t>>())
        << "case " << n << " (" << c.at("kind") << "): " << c.at("text").dump(-1, ' ', true);
    ++n;
  }
  EXPECT_EQ(n, 400);
}

TEST_F(TokenizerGolden, DecodesAsTheReference) {
  int n = 0;
  for (const json& c : golden("detokenize.jsonl")) {
    const auto ids = c.at("ids").get<std::vector<std::int32_t>>();
    EXPECT_EQ(tokenizer_->decode(ids), from_hex(c.at("hex"))) << "case " << n;
    ++n;
  }
  EXPECT_EQ(n, 120);
}

// The stream shows what the bytes, decoded at once, show; and always whole characters.
TEST_F(TokenizerGolden, StreamsWhatItDecodes) {
  for (const json& c : golden("detokenize.jsonl")) {
    const auto ids = c.at("ids").get<std::vector<std::int32_t>>();
    StreamDecoder stream(*tokenizer_);
    std::string streamed;
    for (const std::int32_t id : ids) {
      const std::string part = stream.push(id);
      EXPECT_EQ(find_invalid_utf8(part), part.npos);
      streamed += part;
    }
    streamed += stream.finish();
    const std::string bytes = from_hex(c.at("hex"));
    if (find_invalid_utf8(bytes) == bytes.npos) {
      EXPECT_EQ(streamed, bytes);
    }
    EXPECT_EQ(find_invalid_utf8(streamed), streamed.npos);
  }
}

TEST_F(TokenizerGolden, EncodesRenderedChatTemplates) {
  for (const json& c : golden("chat_template.jsonl")) {
    const std::string text = c.at("rendered");
    EXPECT_EQ(tokenizer_->encode(text, Specials::kAll),
              c.at("ids").get<std::vector<std::int32_t>>());
  }
}

TEST_F(TokenizerGolden, EveryTokenHasBytesAndASpelling) {
  for (std::int32_t id = 0; id < tokenizer_->size(); ++id) {
    ASSERT_FALSE(tokenizer_->piece(id).empty());
    ASSERT_EQ(tokenizer_->find(real_->vocabulary.tokens[static_cast<std::size_t>(id)]), id);
  }
  EXPECT_EQ(tokenizer_->find("<|im_end|>"), 151645);
  EXPECT_EQ(tokenizer_->type(151645), TokenType::kControl);
}

TEST_F(TokenizerGolden, MessageContentYieldsNoSpecialToken) {
  for (std::int32_t id = 151643; id < 151665; ++id) {
    const std::string text(tokenizer_->piece(id));
    EXPECT_EQ(tokenizer_->encode(text, Specials::kAll), std::vector{id});
    for (const std::int32_t got : tokenizer_->encode(text, Specials::kNone)) {
      EXPECT_LT(got, 151643) << text;
    }
  }
}

}  // namespace
}  // namespace qwen
