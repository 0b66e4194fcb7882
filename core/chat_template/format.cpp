#include "core/chat_template/format.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "core/chat_template/text_ops.h"

namespace qwen::jinja {

std::string int_text(Int value) {
  std::string digits;
  const bool negative = value < 0;
  do {
    const int digit = static_cast<int>(value % 10);
    digits += static_cast<char>('0' + (digit < 0 ? -digit : digit));
    value /= 10;
  } while (value != 0);
  if (negative) digits += '-';
  std::reverse(digits.begin(), digits.end());
  return digits;
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 40> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 std::chars_format::scientific);
  std::string digits(buffer.data(), end.ptr);
  const std::string sign = digits[0] == '-' ? "-" : "";
  digits.erase(0, sign.size());
  const std::size_t e = digits.find('e');
  const int exponent = std::stoi(digits.substr(e + 1));
  digits.resize(e);
  std::erase(digits, '.');
  const int n = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    if (n > 1) digits.insert(1, ".");
    std::array<char, 16> tail;
    std::snprintf(tail.data(), tail.size(), "e%c%02d", exponent < 0 ? '-' : '+',
                  std::abs(exponent));
    return sign + digits + tail.data();
  }
  if (exponent < 0) return sign + "0." + std::string(-exponent - 1, '0') + digits;
  if (n <= exponent + 1) return sign + digits + std::string(exponent + 1 - n, '0') + ".0";
  return sign + digits.insert(exponent + 1, ".");
}

namespace {

void append_hex(std::string& out, const char* prefix, unsigned width, char32_t value) {
  std::array<char, 16> buffer;
  std::snprintf(buffer.data(), buffer.size(), "%0*x", static_cast<int>(width),
                static_cast<unsigned>(value));
  out += prefix;
  out += buffer.data();
}

// Not str.isprintable(), as far as that is a matter of ranges; unassigned code points are taken for
// printable.
bool is_hidden(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0xAD || (c >= 0x600 && c <= 0x605) ||
         c == 0x61C || c == 0x6DD || c == 0x70F || c == 0x1680 || c == 0x180E ||
         (c >= 0x2000 && c <= 0x200F) || (c >= 0x2028 && c <= 0x202F) ||
         (c >= 0x205F && c <= 0x206F) || c == 0x3000 || (c >= 0xD800 && c <= 0xF8FF) ||
         c == 0xFEFF || (c >= 0xFFF0 && c <= 0xFFFB) || (c >= 0xFFFE && c <= 0xFFFF) ||
         c >= 0xE0000;
}

// repr(str)
void append_quoted(std::string& out, std::string_view bytes) {
  const bool has_single = bytes.find('\'') != std::string_view::npos;
  const bool has_double = bytes.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  out += quote;
  for (std::size_t pos = 0; pos < bytes.size();) {
    const std::size_t begin = pos;
    const char32_t c = next_code_point(bytes, pos);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (!is_hidden(c)) {
      out.append(bytes, begin, pos - begin);
    } else if (c < 0x100) {
      append_hex(out, "\\x", 2, c);
    } else if (c < 0x10000) {
      append_hex(out, "\\u", 4, c);
    } else {
      append_hex(out, "\\U", 8, c);
    }
  }
  out += quote;
}

void append_json_string(std::string& out, std::string_view bytes, bool ensure_ascii) {
  out += '"';
  for (std::size_t pos = 0; pos < bytes.size();) {
    const std::size_t begin = pos;
    const char32_t c = next_code_point(bytes, pos);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\b') {
      out += "\\b";
    } else if (c == '\f') {
      out += "\\f";
    } else if (c < 0x20 || (ensure_ascii && c >= 0x7F && c < 0x10000)) {
      append_hex(out, "\\u", 4, c);
    } else if (ensure_ascii && c >= 0x10000) {
      append_hex(out, "\\u", 4, 0xD800 + ((c - 0x10000) >> 10));
      append_hex(out, "\\u", 4, 0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
      out.append(bytes, begin, pos - begin);
    }
  }
  out += '"';
}

// Writes what the two formats have in common and walks the containers. The recursion is bounded by
// kMaxValueDepth.
class Writer {
 public:
  Writer(Guard& guard, const JsonStyle* json) : guard_(guard), json_(json) {}

  void write(const Value& value) {
    guard_.charge(1);  // before a container returns: [[], [], ...] costs time, too
    const std::size_t before = out_.size();
    if (const Text* text = value.text()) {
      if (json_) {
        append_json_string(out_, text->bytes(), json_->ensure_ascii);
      } else {
        append_quoted(out_, text->bytes());
      }
    } else if (const Sequence* sequence = value.sequence()) {
      write_sequence(*sequence);
      return;
    } else if (const Dict* dict = value.dict()) {
      write_dict(*dict);
      return;
    } else {
      out_ += scalar(value);
    }
    guard_.check_text(out_.size());
    guard_.charge_bytes(out_.size() - before);
  }

  std::string take() { return std::move(out_); }

 private:
  std::string scalar(const Value& value) const {
    if (value.is<None>()) return json_ ? "null" : "None";
    if (const bool* b = value.as<bool>()) {
      return json_ ? (*b ? "true" : "false") : (*b ? "True" : "False");
    }
    if (const Int* i = value.as<Int>()) return int_text(*i);
    if (const double* d = value.as<double>()) {
      if (json_ && std::isnan(*d)) return "NaN";
      if (json_ && std::isinf(*d)) return *d < 0 ? "-Infinity" : "Infinity";
      return float_text(*d);
    }
    if (value.is_undefined() && !json_) return "Undefined";
    if (json_) guard_.fail("Object of type " + type_name(value) + " is not JSON serializable");
    guard_.unsupported("a " + type_name(value) + " as text");
  }

  void write_sequence(const Sequence& sequence) {
    const bool tuple = sequence.kind == SequenceKind::kTuple;
    if (!tuple && sequence.kind != SequenceKind::kList) {
      const std::string name = type_name(SequencePtr(SequencePtr{}, &sequence));
      if (json_) guard_.fail("Object of type " + name + " is not JSON serializable");
      guard_.unsupported("a " + name + " as text");
    }
    open(tuple && !json_ ? '(' : '[');
    bool first = true;
    for (const Value& item : sequence.items) {
      separate(first);
      write(item);
    }
    if (tuple && !json_ && sequence.items.size() == 1) out_ += ',';
    close(tuple && !json_ ? ')' : ']', sequence.items.empty());
  }

  void write_dict(const Dict& dict) {
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (json_ && json_->sort_keys) {
      const auto all_text =
          std::all_of(entries.begin(), entries.end(), [](auto* e) { return e->first.text(); });
      if (!all_text) guard_.unsupported("sort_keys with keys that are not strings");
      guard_.charge(entries.size() * 20);
      std::sort(entries.begin(), entries.end(), [](auto* a, auto* b) {
        return a->first.text()->bytes() < b->first.text()->bytes();
      });
    }
    open('{');
    bool first = true;
    for (const auto* entry : entries) {
      separate(first);
      write_key(entry->first);
      put(json_ ? json_->key_separator : ": ");
      write(entry->second);
    }
    close('}', entries.empty());
  }

  void write_key(const Value& key) {
    if (!json_ || key.text()) {
      write(key);
    } else if (key.is<None>() || key.is<bool>() || key.is<Int>() || key.is<double>()) {
      out_ += '"' + scalar(key) + '"';
    } else {
      guard_.fail("keys must be str, int, float, bool or None, not " + type_name(key));
    }
  }

  // Text that the template chose: separators and indents may be of any length.
  void put(std::string_view text) {
    guard_.check_text(out_.size() + text.size());
    guard_.charge_bytes(text.size());
    out_ += text;
  }
  void open(char bracket) {
    out_ += bracket;
    ++level_;
  }
  void separate(bool& first) {
    if (!first) put(json_ ? json_->item_separator : ", ");
    first = false;
    new_line();
  }
  void close(char bracket, bool empty) {
    --level_;
    if (!empty) new_line();
    out_ += bracket;
  }
  void new_line() {
    if (!json_ || !json_->indent) return;
    put("\n");
    for (int i = 0; i < level_; ++i) put(*json_->indent);
  }

  Guard& guard_;
  const JsonStyle* json_;  // null: repr
  std::string out_;
  int level_ = 0;
};

}  // namespace

TextPtr to_text(Guard& guard, const Value& value) {
  if (const auto* text = value.as<TextPtr>()) return *text;
  if (value.is_undefined()) return std::make_shared<const Text>();
  Writer writer(guard, nullptr);
  writer.write(value);
  return std::make_shared<const Text>(Text(writer.take(), false));
}

std::string to_json(Guard& guard, const Value& value, const JsonStyle& style) {
  Writer writer(guard, &style);
  writer.write(value);
  return writer.take();
}

}  // namespace qwen::jinja
