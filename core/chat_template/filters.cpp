// Filters. Those that take another filter or a test by name (map, select, ...) are expressions of
// their own: see parser_calls.cpp.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/chat_template/builtins.h"
#include "core/chat_template/format.h"
#include "core/chat_template/operators.h"
#include "core/chat_template/text_ops.h"

namespace qwen::jinja {

namespace {

Value absolute(Guard& guard, const Value& input, Args) {
  Int storage = 0;
  if (const double* d = input.as<double>()) return std::fabs(*d);
  const Int* i = as_int(input, storage);
  if (!i) guard.fail("bad operand type for abs(): '" + type_name(input) + "'");
  return *i < 0 ? negate(guard, *i) : Value(*i);
}

template <Case kTo>
Value mapped(Guard& guard, const Value& input, Args) {
  return change_case(guard, *to_text(guard, input), kTo);
}

Value or_default(Guard& guard, const Value& input, Args args) {
  const bool falsy_too = args[1] && is_true(*args[1]);
  if (!input.is_undefined() && !(falsy_too && !is_true(input))) return input;
  return args[0] ? *args[0] : make_input_text(guard, "");
}

Value first(Guard& guard, const Value& input, Args) {
  if (const Text* text = input.text()) {
    return text->empty() ? Value() : item(guard, input, Int(0));
  }
  const SequencePtr items = iterate(guard, input);
  return items->items.empty() ? Value() : items->items.front();
}

Value last(Guard& guard, const Value& input, Args) {
  if (const Text* text = input.text()) {
    return text->empty() ? Value() : item(guard, input, Int(-1));
  }
  if (input.sequence() && input.sequence()->kind == SequenceKind::kOnce) {
    guard.fail("'generator' object is not reversible");
  }
  const SequencePtr items = iterate(guard, input);
  return items->items.empty() ? Value() : items->items.back();
}

// What int() and float() take: surrounding space, a sign, single underscores between digits. Empty
// if the underscores are misplaced.
std::string number_text(const Text& text) {
  const Text stripped = strip(text, Side::kBoth);
  std::string out;
  const std::string& bytes = stripped.bytes();
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto digit = [&](std::size_t at) {
      return at < bytes.size() && bytes[at] >= '0' && bytes[at] <= '9';
    };
    if (bytes[i] != '_') {
      out += bytes[i];
    } else if (i == 0 || !digit(i - 1) || !digit(i + 1)) {
      return "";
    }
  }
  return out;
}

std::optional<Int> parse_int(Guard& guard, const Text& text) {
  const std::string digits = number_text(text);
  std::size_t i = !digits.empty() && (digits[0] == '-' || digits[0] == '+') ? 1 : 0;
  if (i == digits.size()) return std::nullopt;
  Int value = 0;
  for (; i < digits.size(); ++i) {
    if (digits[i] < '0' || digits[i] > '9') return std::nullopt;
    if (value > (Int{1} << 120)) guard.unsupported("an integer of more than 127 bits");
    value = value * 10 + (digits[i] - '0');
  }
  return digits[0] == '-' ? -value : value;
}

std::optional<double> parse_float(const Text& text) {
  std::string digits = number_text(text);
  const bool negative = !digits.empty() && digits[0] == '-';
  if (!digits.empty() && (negative || digits[0] == '+')) digits.erase(0, 1);
  if (digits.empty() || digits[0] == '-' || digits[0] == '+') return std::nullopt;
  const bool word = digits[0] == 'i' || digits[0] == 'I' || digits[0] == 'n' || digits[0] == 'N';
  if (word) {
    for (char& c : digits) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    if (digits == "nan") return std::nan("");
    if (digits != "inf" && digits != "infinity") return std::nullopt;
    return negative ? -HUGE_VAL : HUGE_VAL;
  }
  double value = 0;
  const char* end = digits.data() + digits.size();
  const auto parsed = std::from_chars(digits.data(), end, value);
  if (parsed.ptr != end) return std::nullopt;
  if (parsed.ec == std::errc::result_out_of_range) {  // from_chars leaves the value alone
    const std::size_t e = digits.find_first_of("eE");
    value = e != std::string::npos && digits[e + 1] == '-' ? 0.0 : HUGE_VAL;
  } else if (parsed.ec != std::errc{}) {
    return std::nullopt;
  }
  return negative ? -value : value;
}

std::optional<Value> truncated(Guard& guard, double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (std::fabs(value) > 1e38) guard.unsupported("an integer of more than 127 bits");
  return Value(static_cast<Int>(value));
}

Value to_int(Guard& guard, const Value& input, Args args) {
  if (args[1]) guard.unsupported("the filter int with a base");
  if (input.is_undefined()) fail_undefined(guard, input);
  const Value standard = args[0] ? *args[0] : Value(Int(0));
  Int storage = 0;
  if (const Int* i = as_int(input, storage)) return *i;
  if (const double* d = input.as<double>()) {
    if (std::isinf(*d)) guard.fail("cannot convert float infinity to integer");
    return truncated(guard, *d).value_or(standard);
  }
  if (const Text* text = input.text()) {
    guard.charge_bytes(text->size());
    if (const auto value = parse_int(guard, *text)) return *value;
    if (const auto value = parse_float(*text)) return truncated(guard, *value).value_or(standard);
  }
  return standard;
}

Value to_float(Guard& guard, const Value& input, Args args) {
  if (input.is_undefined()) fail_undefined(guard, input);
  double number = 0;
  if (as_number(input, number)) return number;
  if (const Text* text = input.text()) {
    guard.charge_bytes(text->size());
    if (const auto value = parse_float(*text)) return *value;
  }
  return args[0] ? *args[0] : Value(0.0);
}

Value items(Guard& guard, const Value& input, Args) {
  if (input.is_undefined()) return make_sequence(guard, {}, SequenceKind::kOnce);
  if (!input.dict()) guard.fail("the filter items needs a mapping, not " + type_name(input));
  return dict_items(guard, *input.dict(), SequenceKind::kOnce);
}

Value join(Guard& guard, const Value& input, Args args) {
  const TextPtr separator = args[0] ? to_text(guard, *args[0]) : std::make_shared<const Text>();
  if (!args[1] || args[1]->is<None>()) return join_texts(guard, *separator, input);
  const Text* path = args[1]->text();
  if (!path) guard.unsupported("an attribute that is not a string");
  std::vector<Value> parts;
  for (const Value& element : Elements(iterate(guard, input))) {
    parts.push_back(attribute_path(guard, element, path->bytes()));
  }
  return join_texts(guard, *separator, make_sequence(guard, std::move(parts), SequenceKind::kList));
}

Value length(Guard& guard, const Value& input, Args) {
  if (const Text* text = input.text()) {
    guard.charge_bytes(text->size());
    return Int(count_code_points(text->bytes()));
  }
  if (input.is_undefined()) return Int(0);
  if (const Dict* dict = input.dict()) return Int(dict->entries.size());
  const Sequence* s = input.sequence();
  if (!s || s->kind == SequenceKind::kOnce) {
    guard.fail("object of type '" + type_name(input) + "' has no len()");
  }
  return Int(s->items.size());
}

Value to_list(Guard& guard, const Value& input, Args) {
  return make_sequence(guard, iterate(guard, input)->items, SequenceKind::kList);
}

Value replace(Guard& guard, const Value& input, Args args) {
  return replace_text(guard, *to_text(guard, input), args);
}

Value reverse(Guard& guard, const Value& input, Args) {
  const Value minus_one = Int(-1);
  if (input.text()) return slice(guard, input, nullptr, nullptr, &minus_one);
  std::vector<Value> reversed = iterate(guard, input)->items;
  std::reverse(reversed.begin(), reversed.end());
  return make_sequence(guard, std::move(reversed), SequenceKind::kOnce);
}

Value to_string(Guard& guard, const Value& input, Args) { return to_text(guard, input); }

Value trim(Guard& guard, const Value& input, Args args) {
  return strip_text(guard, *to_text(guard, input), args, Side::kBoth);
}

Value tojson(Guard& guard, const Value& input, Args args) {
  JsonStyle style;
  style.ensure_ascii = args[0] && is_true(*args[0]);
  if (args[1] && !args[1]->is<None>()) {
    Int storage = 0;
    if (const Text* text = args[1]->text()) {
      style.indent = text->bytes();
    } else if (const Int* n = as_int(*args[1], storage)) {
      style.indent = std::string(static_cast<std::size_t>(std::clamp(*n, Int{0}, Int{1000})), ' ');
    } else {
      guard.fail("indent must be an integer or a string");
    }
    style.item_separator = ",";
  }
  if (args[2] && !args[2]->is<None>()) {
    const Sequence* both = args[2]->sequence();
    if (!both || both->items.size() != 2 || !both->items[0].text() || !both->items[1].text()) {
      guard.fail("separators must be two strings");
    }
    style.item_separator = both->items[0].text()->bytes();
    style.key_separator = both->items[1].text()->bytes();
  }
  style.sort_keys = args[3] && is_true(*args[3]);
  return make_input_text(guard, to_json(guard, input, style));
}

constexpr Signature kNone = {};

constexpr Filter kFilters[] = {
    {"abs", kNone, absolute},
    {"capitalize", kNone, mapped<Case::kCapital>},
    {"count", kNone, length},
    {"d", {{"default_value", "boolean"}, 0}, or_default},
    {"default", {{"default_value", "boolean"}, 0}, or_default},
    {"first", kNone, first},
    {"float", {{"default"}, 0}, to_float},
    {"int", {{"default", "base"}, 0}, to_int},
    {"items", kNone, items},
    {"join", {{"d", "attribute"}, 0}, join},
    {"last", kNone, last},
    {"length", kNone, length},
    {"list", kNone, to_list},
    {"lower", kNone, mapped<Case::kLower>},
    {"replace", {{"old", "new", "count"}, 2}, replace},
    {"reverse", kNone, reverse},
    {"string", kNone, to_string},
    {"title", kNone, mapped<Case::kTitleWords>},
    {"tojson", {{"ensure_ascii", "indent", "separators", "sort_keys"}, 0}, tojson},
    {"trim", {{"chars"}, 0}, trim},
    {"upper", kNone, mapped<Case::kUpper>},
};

}  // namespace

const Filter* find_filter(std::string_view name) {
  for (const Filter& filter : kFilters) {
    if (filter.name == name) return &filter;
  }
  return nullptr;
}

}  // namespace qwen::jinja
