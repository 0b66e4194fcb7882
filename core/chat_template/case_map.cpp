// Upper and lower case without Unicode's tables: the letters of ASCII, Latin-1 and basic Cyrillic
// are mapped, the scripts without case pass through, and the other cased ranges are refused,
// because a wrong letter would go unnoticed.
#include <string>

#include "core/chat_template/text_ops.h"

namespace qwen::jinja {

namespace {

// Blocks that hold letters with case (Unicode 14), apart from the letters mapped below.
bool may_have_case(char32_t c) {
  return c == 0xAA || c == 0xB5 || c == 0xBA || (c >= 0xC0 && c <= 0x58F) ||
         (c >= 0x10A0 && c <= 0x10FF) || (c >= 0x13A0 && c <= 0x13FF) ||
         (c >= 0x1C80 && c <= 0x1CBF) || (c >= 0x1D00 && c <= 0x1FFF) ||
         (c >= 0x2071 && c <= 0x209F) || (c >= 0x2100 && c <= 0x218F) ||
         (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x2C00 && c <= 0x2D2F) ||
         (c >= 0xA640 && c <= 0xA7FF) || (c >= 0xAB30 && c <= 0xABBF) ||
         (c >= 0xFB00 && c <= 0xFB17) || (c >= 0xFF21 && c <= 0xFF5A) ||
         (c >= 0x10400 && c <= 0x107BF) || (c >= 0x10C80 && c <= 0x10CFF) ||
         (c >= 0x118A0 && c <= 0x118DF) || (c >= 0x16E40 && c <= 0x16E7F) ||
         (c >= 0x1D400 && c <= 0x1D7FF) || (c >= 0x1DF00 && c <= 0x1DFFF) ||
         (c >= 0x1E900 && c <= 0x1E943) || (c >= 0x1F130 && c <= 0x1F189);
}

enum class Letter { kNone, kUpper, kLower, kUnknown };

// `other` becomes the same letter in the other case.
Letter classify(char32_t c, char32_t& other) {
  const auto within = [c](char32_t first, char32_t last) { return c >= first && c <= last; };
  const auto pair = [&](Letter letter, int distance) {
    other = static_cast<char32_t>(static_cast<int>(c) + distance);
    return letter;
  };
  if (within('A', 'Z')) return pair(Letter::kUpper, 32);
  if (within('a', 'z')) return pair(Letter::kLower, -32);
  if (within(0xC0, 0xDE) && c != 0xD7) return pair(Letter::kUpper, 32);
  if (within(0xE0, 0xFE) && c != 0xF7) return pair(Letter::kLower, -32);
  if (within(0x410, 0x42F)) return pair(Letter::kUpper, 32);
  if (within(0x430, 0x44F)) return pair(Letter::kLower, -32);
  if (within(0x400, 0x40F)) return pair(Letter::kUpper, 80);
  if (within(0x450, 0x45F)) return pair(Letter::kLower, -80);
  if (c == 0xD7 || c == 0xF7) return Letter::kNone;
  return may_have_case(c) ? Letter::kUnknown : Letter::kNone;
}

}  // namespace

std::optional<Text> map_case(const Text& text, Case to) {
  const std::string_view bytes = text.bytes();
  std::string mapped;  // all pairs above have equal length in UTF-8
  mapped.reserve(bytes.size());
  bool word_begins = true;
  for (std::size_t pos = 0; pos < bytes.size();) {
    const char32_t c = next_code_point(bytes, pos);
    char32_t other = c;
    const Letter letter = classify(c, other);
    if (letter == Letter::kUnknown) return std::nullopt;
    const bool upper = to == Case::kUpper || (to != Case::kLower && word_begins);
    const bool change = letter == (upper ? Letter::kLower : Letter::kUpper);
    append_utf8(mapped, change ? other : c);
    if (to == Case::kTitle) {
      word_begins = letter == Letter::kNone;
    } else if (to == Case::kTitleWords) {
      word_begins = is_space(c) || (c < 0x80 && c != 0 &&
                                    std::string_view("-({[<").find(static_cast<char>(c)) !=
                                        std::string_view::npos);
    } else {
      word_begins = false;
    }
  }
  return text.with_bytes(std::move(mapped));
}

}  // namespace qwen::jinja
