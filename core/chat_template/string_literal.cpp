// Escapes in string literals. Jinja hands them to Python's codec "unicode-escape" after writing
// every non-ASCII character as an escape itself.
#include <charconv>

#include "core/chat_template/lexer.h"
#include "core/chat_template/text_ops.h"

namespace qwen::jinja {

namespace {

// Reads exactly `digits` hexadecimal digits at pos, which moves behind them.
char32_t read_hex(std::string_view body, std::size_t& pos, std::size_t digits, Location at) {
  std::uint32_t value = 0;
  const char* first = body.data() + pos;
  const char* last = first + std::min(digits, body.size() - pos);
  const auto read = std::from_chars(first, last, value, 16);
  if (read.ptr != first + digits) fail_syntax(at, "a truncated \\x, \\u or \\U escape");
  if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
    fail_syntax(at, "an escape that is no character");
  }
  pos += digits;
  return value;
}

char32_t read_octal(std::string_view body, std::size_t& pos) {
  char32_t value = 0;
  for (int i = 0; i < 3 && pos < body.size() && body[pos] >= '0' && body[pos] <= '7'; ++i) {
    value = value * 8 + static_cast<char32_t>(body[pos++] - '0');
  }
  return value;
}

}  // namespace

std::string decode_string_literal(std::string_view body, Location at) {
  std::string out;
  constexpr std::string_view kFrom = "\\'\"abfnrtv";
  constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
  for (std::size_t pos = 0; pos < body.size();) {
    if (body[pos] != '\\') {
      out += body[pos++];
      continue;
    }
    ++pos;  // the pattern of a string guarantees a character here
    const char c = body[pos];
    if (c == '\n') {
      ++pos;
    } else if (const std::size_t i = kFrom.find(c); i != std::string_view::npos) {
      out += kTo[i];
      ++pos;
    } else if (c >= '0' && c <= '7') {
      append_utf8(out, read_octal(body, pos));
    } else if (c == 'x' || c == 'u' || c == 'U') {
      ++pos;
      append_utf8(out, read_hex(body, pos, c == 'x' ? 2 : c == 'u' ? 4 : 8, at));
    } else if (c == 'N') {
      fail_unsupported(at, "\\N escapes");
    } else if (static_cast<unsigned char>(c) >= 0x80) {
      fail_unsupported(at, "a backslash before a non-ASCII character");
    } else {
      out += '\\';
    }
  }
  return out;
}

}  // namespace qwen::jinja
