#include "core/tokenizer/utf8.h"

#include <cstdint>
#include <cstring>

namespace qwen {

Utf8Prefix utf8_prefix(std::string_view text) {
  const auto at = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return {Utf8Start::kCharacter, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Start::kInvalid, 1};
  // The second byte alone decides about overlong forms, surrogates and the upper end.
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  const std::size_t length = utf8_length(text[0]);
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Utf8Start::kIncomplete, i};
    const bool fits = i == 1 ? at(1) >= low && at(1) <= high : (at(i) & 0xC0) == 0x80;
    if (!fits) return {Utf8Start::kInvalid, i};
  }
  return {Utf8Start::kCharacter, length};
}

std::size_t skip_ascii(std::string_view text, std::size_t from) {
  std::size_t i = from;
  for (std::uint64_t word; i + sizeof word <= text.size(); i += sizeof word) {
    std::memcpy(&word, text.data() + i, sizeof word);
    if (word & 0x8080808080808080u) break;
  }
  while (i < text.size() && static_cast<unsigned char>(text[i]) < 0x80) ++i;
  return i;
}

std::size_t find_invalid_utf8(std::string_view text) {
  for (std::size_t i = skip_ascii(text, 0); i < text.size(); i = skip_ascii(text, i)) {
    const Utf8Prefix prefix = utf8_prefix(text.substr(i));
    if (prefix.start != Utf8Start::kCharacter) return i;
    i += prefix.length;
  }
  return std::string_view::npos;
}

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&out](char32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  }
}

}  // namespace qwen
