// UTF-8 as RFC 3629 defines it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace qwen {

enum class Utf8Start { kCharacter, kIncomplete, kInvalid };

// What stands at the start of a byte sequence.
struct Utf8Prefix {
  Utf8Start start;
  // kCharacter: bytes of the character. kIncomplete: all the bytes there are. kInvalid: bytes to be
  // replaced by one U+FFFD (the "maximal subpart" of the Unicode standard, chapter 3.9).
  std::size_t length;
};

// `text` must not be empty.
Utf8Prefix utf8_prefix(std::string_view text);

// Offset of the first byte that begins no complete character; npos when `text` is valid.
std::size_t find_invalid_utf8(std::string_view text);

// Length in bytes of the character whose first byte is `lead`, in valid UTF-8.
inline std::size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// The character at `p`, in valid UTF-8.
inline char32_t utf8_decode(const char* p) {
  const auto at = [p](int i) { return static_cast<char32_t>(static_cast<unsigned char>(p[i])); };
  const char32_t lead = at(0);
  if (lead < 0x80) return lead;
  if (lead < 0xE0) return (lead & 0x1F) << 6 | (at(1) & 0x3F);
  if (lead < 0xF0) return (lead & 0x0F) << 12 | (at(1) & 0x3F) << 6 | (at(2) & 0x3F);
  return (lead & 0x07) << 18 | (at(1) & 0x3F) << 12 | (at(2) & 0x3F) << 6 | (at(3) & 0x3F);
}

// Offset of the first byte >= 0x80 at or after `from`; text.size() when the rest is ASCII.
std::size_t skip_ascii(std::string_view text, std::size_t from);

void append_utf8(std::string& out, char32_t code_point);

}  // namespace qwen
