#include "core/chat_template/lexer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/chat_template/text_ops.h"

namespace qwen::jinja {

void fail_syntax(Location at, const std::string& message) {
  fail_at(at, Exit::kModel, "template_syntax", message,
          "the model's chat template is damaged or not Jinja; give another template");
}

void fail_unsupported(Location at, const std::string& message) {
  fail_at(at, Exit::kModel, "template_unsupported", message + " is not supported",
          "give another template; this one uses a part of Jinja that is not built in");
}

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word(char c) {
  return is_digit(c) || c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Line breaks become \n; one at the very end is dropped (keep_trailing_newline is off).
std::string normalize_newlines(std::string source) {
  std::size_t to = 0;
  for (std::size_t from = 0; from < source.size(); ++from) {
    if (source[from] == '\r') {
      if (from + 1 < source.size() && source[from + 1] == '\n') ++from;
      source[to++] = '\n';
    } else {
      source[to++] = source[from];
    }
  }
  source.resize(to);
  if (!source.empty() && source.back() == '\n') source.pop_back();
  return source;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(normalize_newlines(std::move(source))) {}

  std::vector<Token> run() {
    bool line_starting = true;
    while (pos_ < source_.size()) {
      const std::size_t tag = find_tag();
      const char kind = tag == std::string::npos ? '\0' : source_[tag + 1];
      emit_data(tag, kind, line_starting);
      if (kind == '\0') break;
      const Location at = locate(tag);
      pos_ = tag + 2;
      if (peek() == '-' || peek() == '+') ++pos_;
      if (kind == '#') {
        skip_comment(at);
      } else {
        add(kind == '{' ? TokenKind::kVariableBegin : TokenKind::kBlockBegin, "", at);
        if (!read_code(kind == '{')) break;
      }
      line_starting = source_[pos_ - 1] == '\n';
    }
    add(TokenKind::kEnd, "", locate(source_.size()));
    return std::move(tokens_);
  }

 private:
  char peek(std::size_t ahead = 0) const {
    return pos_ + ahead < source_.size() ? source_[pos_ + ahead] : '\0';
  }

  void add(TokenKind kind, std::string text, Location at) {
    tokens_.push_back({kind, std::move(text), at});
  }

  // Line and column of a position; positions only grow, so that the whole costs one pass.
  Location locate(std::size_t pos) {
    while (located_ < pos) {
      if (source_[located_] == '\n') {
        ++location_.line;
        location_.column = 1;
        ++located_;
      } else {
        next_code_point(source_, located_);
        ++location_.column;
      }
    }
    return location_;
  }

  std::size_t find_tag() const {
    for (std::size_t at = source_.find('{', pos_); at != std::string::npos;
         at = source_.find('{', at + 1)) {
      if (at + 1 == source_.size()) break;
      const char next = source_[at + 1];
      if (next == '{' || next == '%' || next == '#') return at;
    }
    return std::string::npos;
  }

  // The text before a tag (of this kind, '\0' for the end), less the white space the tag takes
  // away.
  void emit_data(std::size_t tag, char kind, bool line_starting) {
    const Location at = locate(pos_);
    std::string_view text = std::string_view(source_).substr(pos_, tag - pos_);
    if (kind != '\0') {
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
      const std::size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
      const std::size_t end = space_begin(text);
      if (sign == '-') {
        text = text.substr(0, end);
      } else if (sign != '+' && kind != '{' && (line > 0 || line_starting) && end <= line) {
        text = text.substr(0, line);
      }
    }
    if (!text.empty()) add(TokenKind::kData, std::string(text), at);
  }

  // Where the white space at the end of a text begins.
  static std::size_t space_begin(std::string_view text) {
    std::size_t end = text.size();
    while (end > 0) {
      std::size_t last = end;
      step_back(text, last);
      std::size_t next = last;
      if (!is_space(next_code_point(text, next))) break;
      end = last;
    }
    return end;
  }

  void skip_space() {
    while (pos_ < source_.size()) {
      std::size_t next = pos_;
      if (!is_space(next_code_point(source_, next))) break;
      pos_ = next;
    }
  }

  void skip_comment(Location at) {
    const std::size_t end = source_.find("#}", pos_);
    if (end == std::string::npos) fail_syntax(at, "this comment has no end");
    const char sign = end > pos_ ? source_[end - 1] : '\0';
    pos_ = end + 2;
    after_tag(sign, true);
  }

  // A tag's end has been read: '-' takes all white space that follows, a block or comment one
  // newline.
  void after_tag(char sign, bool trims_newline) {
    if (sign == '-') {
      skip_space();
    } else if (sign != '+' && trims_newline && peek() == '\n') {
      ++pos_;
    }
  }

  bool at_end_of_tag(bool variable) const {
    const char close = variable ? '}' : '%';
    const char sign = peek();
    const std::size_t skip = sign == '-' || (sign == '+' && !variable) ? 1 : 0;
    return peek(skip) == close && peek(skip + 1) == '}';
  }

  // The inside of a tag up to its end; false at the end of the template.
  bool read_code(bool variable) {
    std::string open;  // the brackets that are still open, as their closing ones
    bool first = !variable;
    for (;;) {
      skip_space();
      if (pos_ == source_.size()) return false;
      const Location at = locate(pos_);
      if (open.empty() && at_end_of_tag(variable)) {
        const char sign = peek();
        const bool has_sign = sign == '-' || (sign == '+' && !variable);
        pos_ += has_sign ? 3 : 2;
        add(variable ? TokenKind::kVariableEnd : TokenKind::kBlockEnd, "", at);
        after_tag(has_sign ? sign : '\0', !variable);
        return true;
      }
      read_token(open, at);
      // Inside raw, nothing is a tag: refused before its content is misread.
      if (first && tokens_.back().kind == TokenKind::kName && tokens_.back().text == "raw") {
        fail_unsupported(at, "the tag 'raw'");
      }
      first = false;
    }
  }

  void read_token(std::string& open, Location at) {
    const char c = peek();
    if (is_digit(c)) {
      read_number(at);
    } else if (is_word(c)) {
      const std::size_t begin = pos_;
      while (is_word(peek())) ++pos_;
      add(TokenKind::kName, source_.substr(begin, pos_ - begin), at);
    } else if (c == '"' || c == '\'') {
      read_string(c, at);
    } else {
      read_operator(open, at);
    }
  }

  // Digits, with single underscores between them.
  std::string read_digits() {
    std::string digits;
    while (is_digit(peek()) || (peek() == '_' && !digits.empty() && is_digit(peek(1)))) {
      if (peek() != '_') digits += peek();
      ++pos_;
    }
    return digits;
  }

  void read_number(Location at) {
    const bool after_dot = pos_ > 0 && source_[pos_ - 1] == '.';  // a.0.1: never a float
    const char base = peek() == '0' ? peek(1) : '\0';
    std::string number = read_digits();
    if (number == "0" && base != '\0' &&
        std::string_view("xXoObB").find(base) != std::string::npos) {
      fail_unsupported(at, "a number that is not decimal");
    }
    bool is_float = false;
    if (!after_dot && peek() == '.' && is_digit(peek(1))) {
      ++pos_;
      number += '.' + read_digits();
      is_float = true;
    }
    if (!after_dot && (peek() == 'e' || peek() == 'E')) {
      const bool sign = peek(1) == '+' || peek(1) == '-';
      if (is_digit(peek(sign ? 2 : 1))) {
        number += 'e';
        if (peek(1) == '-') number += '-';
        pos_ += sign ? 2 : 1;
        number += read_digits();
        is_float = true;
      }
    }
    if (!is_float && number.size() > 1 && number[0] == '0' &&
        number.find_first_not_of('0') != std::string::npos) {
      fail_syntax(at, "an integer with leading zeros");
    }
    add(is_float ? TokenKind::kFloat : TokenKind::kInteger, std::move(number), at);
  }

  void read_string(char quote, Location at) {
    std::size_t end = pos_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail_syntax(at, "this string has no end");
    const std::string_view body = std::string_view(source_).substr(pos_ + 1, end - pos_ - 1);
    add(TokenKind::kString, decode_string_literal(body, at), at);
    pos_ = end + 1;
  }

  void read_operator(std::string& open, Location at) {
    constexpr std::array<std::string_view, 6> kLong = {"//", "**", "==", "!=", ">=", "<="};
    constexpr std::string_view kShort = "+-/*%~[](){}><=.:|,;";
    const std::string_view two = std::string_view(source_).substr(pos_, 2);
    if (std::find(kLong.begin(), kLong.end(), two) != kLong.end()) {
      pos_ += 2;
      return add(TokenKind::kOperator, std::string(two), at);
    }
    const char c = peek();
    if (kShort.find(c) == std::string_view::npos) {
      std::size_t end = pos_;
      next_code_point(source_, end);
      fail_syntax(at, "unexpected character '" + source_.substr(pos_, end - pos_) + "'");
    }
    if (c == '{' || c == '[' || c == '(') open += c == '{' ? '}' : c == '[' ? ']' : ')';
    if (c == '}' || c == ']' || c == ')') {
      if (open.empty()) fail_syntax(at, std::string("unexpected '") + c + "'");
      if (open.back() != c) {
        fail_syntax(at, std::string("unexpected '") + c + "', expected '" + open.back() + "'");
      }
      open.pop_back();
    }
    ++pos_;
    add(TokenKind::kOperator, std::string(1, c), at);
  }

  std::string source_;
  std::size_t pos_ = 0;
  std::size_t located_ = 0;
  Location location_;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string source) { return Lexer(std::move(source)).run(); }

}  // namespace qwen::jinja
