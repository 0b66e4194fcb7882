// Small vocabularies for the tokenizer's tests.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/tokenizer/byte_alphabet.h"
#include "core/tokenizer/tokenizer.h"
#include "core/tokenizer/utf8.h"

namespace qwen {

using Ids = std::vector<std::int32_t>;

inline std::string utf8(char32_t code_point) {
  std::string text;
  append_utf8(text, code_point);
  return text;
}

// Bytes in the byte alphabet.
inline std::string spelled(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) append_utf8(text, kByteToCodePoint[static_cast<unsigned char>(c)]);
  return text;
}

// A vocabulary that owns its strings. Starts with the 256 bytes: the id of a byte is its value.
struct VocabularyBuilder {
  std::deque<std::string> tokens;
  std::vector<std::int32_t> types;
  std::deque<std::string> merges;

  VocabularyBuilder() {
    for (int byte = 0; byte < 256; ++byte) add(spelled(std::string(1, static_cast<char>(byte))));
  }
  std::int32_t add(std::string spelling, TokenType type = TokenType::kNormal) {
    tokens.push_back(std::move(spelling));
    types.push_back(static_cast<std::int32_t>(type));
    return static_cast<std::int32_t>(tokens.size() - 1);
  }
  // The next rule and, when it is new, its token.
  VocabularyBuilder& merge(std::string_view left, std::string_view right) {
    merges.push_back(spelled(left) + " " + spelled(right));
    const std::string whole = spelled(left) + spelled(right);
    if (std::find(tokens.begin(), tokens.end(), whole) == tokens.end()) add(whole);
    return *this;
  }
  Vocabulary vocabulary() const {
    return {{tokens.begin(), tokens.end()}, types, {merges.begin(), merges.end()}};
  }
};

// "ab|c": the pieces of an encoding, by their bytes.
inline std::string pieces(const Tokenizer& tokenizer, std::string_view text,
                          Specials specials = Specials::kNone) {
  std::string joined;
  for (const std::int32_t id : tokenizer.encode(text, specials)) {
    if (!joined.empty()) joined += '|';
    joined += tokenizer.piece(id);
  }
  return joined;
}

}  // namespace qwen
