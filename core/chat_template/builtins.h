// The tables of filters, tests, methods and functions. A name that is in none of them is refused
// when the template is parsed.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string_view>

#include "core/chat_template/text_ops.h"
#include "core/chat_template/value.h"

namespace qwen::jinja {

// One slot per parameter, empty where the template gives none.
using Args = std::span<const std::optional<Value>>;

// Parameter names in order, empty after the last; the first `required` must be given.
struct Signature {
  std::array<std::string_view, 4> names = {};
  int required = 0;

  int size() const;
};

struct Filter {
  std::string_view name;
  Signature signature;
  Value (*apply)(Guard&, const Value& input, Args);
};
const Filter* find_filter(std::string_view name);

struct Test {
  std::string_view name;
  int n_args;
  bool (*holds)(Guard&, const Value& input, Args);
};
const Test* find_test(std::string_view name);

struct MethodEntry {
  std::string_view name;
  bool of_dict;  // otherwise of str
  Signature signature;
  Value (*call)(Guard&, const Value& self, Args);
};
// Any method of this name; the names of both types are distinct.
const MethodEntry* find_method(std::string_view name);
// The method of this value; null if its type has none of this name.
const MethodEntry* find_method(std::string_view name, const Value& self);

std::optional<Function> find_function(std::string_view name);

// Shared by filters and methods of one name.
Value split_text(Guard& guard, const Text& text, Args args, bool from_right);
Value replace_text(Guard& guard, const Text& text, Args args);
Value strip_text(Guard& guard, const Text& text, Args args, Side side);
Value change_case(Guard& guard, const Text& text, Case to);
Value join_texts(Guard& guard, const Text& separator, const Value& items);
Value dict_items(Guard& guard, const Dict& dict, SequenceKind kind);

}  // namespace qwen::jinja
