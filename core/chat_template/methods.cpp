// Methods of strings and mappings.
#include <algorithm>

#include "core/chat_template/builtins.h"
#include "core/chat_template/format.h"
#include "core/chat_template/operators.h"
#include "core/chat_template/text_ops.h"

namespace qwen::jinja {

namespace {

const Text& text_argument(Guard& guard, const std::optional<Value>& arg) {
  if (const Text* text = arg->text()) return *text;
  guard.fail("a string is needed here, not " + type_name(*arg));
}

// An optional count, -1 (no bound) if it is left out.
long count_argument(Guard& guard, const std::optional<Value>& arg) {
  if (!arg) return -1;
  Int storage = 0;
  const Int* given = as_int(*arg, storage);
  if (!given) guard.fail("an integer is needed here, not " + type_name(*arg));
  constexpr Int kMany = Int{1} << 40;
  return *given < 0 ? -1 : static_cast<long>(std::min(*given, kMany));
}

bool starts_or_ends(Guard& guard, const Value& self, Args args, bool at_end) {
  const std::string_view bytes = self.text()->bytes();
  const auto test = [&](const Value& affix) {
    const Text* text = affix.text();
    if (!text) guard.fail("a string is needed here, not " + type_name(affix));
    guard.charge(1 + text->size() / 16);
    return at_end ? bytes.ends_with(text->bytes()) : bytes.starts_with(text->bytes());
  };
  const Sequence* several = args[0]->sequence();
  if (!several || several->kind != SequenceKind::kTuple) return test(*args[0]);
  return std::any_of(several->items.begin(), several->items.end(), test);
}

template <Case kTo>
Value mapped(Guard& guard, const Value& self, Args) {
  return change_case(guard, *self.text(), kTo);
}

template <Side kSide>
Value stripped(Guard& guard, const Value& self, Args args) {
  return strip_text(guard, *self.text(), args, kSide);
}

Value starts_with(Guard& guard, const Value& self, Args args) {
  return starts_or_ends(guard, self, args, false);
}
Value ends_with(Guard& guard, const Value& self, Args args) {
  return starts_or_ends(guard, self, args, true);
}
Value split_left(Guard& guard, const Value& self, Args args) {
  return split_text(guard, *self.text(), args, false);
}
Value split_from_right(Guard& guard, const Value& self, Args args) {
  return split_text(guard, *self.text(), args, true);
}
Value replaced(Guard& guard, const Value& self, Args args) {
  for (int i : {0, 1}) text_argument(guard, args[i]);
  return replace_text(guard, *self.text(), args);
}
Value joined(Guard& guard, const Value& self, Args args) {
  const SequencePtr items = iterate(guard, *args[0]);
  for (const Value& item : items->items) {
    if (!item.text()) guard.fail("join() needs strings, not " + type_name(item));
  }
  return join_texts(guard, *self.text(), Value(items));
}
Value find(Guard& guard, const Value& self, Args args) {
  const std::string_view bytes = self.text()->bytes();
  guard.charge_bytes(bytes.size());
  const std::size_t at = find_bytes(bytes, text_argument(guard, args[0]).bytes());
  return at == std::string_view::npos ? Int(-1) : Int(count_code_points(bytes.substr(0, at)));
}
Value count(Guard& guard, const Value& self, Args args) {
  guard.charge(1 + self.text()->size() / 4);
  return Int(count_occurrences(self.text()->bytes(), text_argument(guard, args[0]).bytes()));
}
Value without_affix(Guard& guard, const Value& self, Args args, bool at_end) {
  if (!args[0]->text()) guard.fail("a string is needed here, not " + type_name(*args[0]));
  const Text& text = *self.text();
  const std::size_t n = args[0]->text()->size();
  if (!starts_or_ends(guard, self, args, at_end)) return self;
  return make_text(guard, at_end ? text.slice(0, text.size() - n) : text.slice(n, text.size()));
}
Value without_prefix(Guard& guard, const Value& self, Args args) {
  return without_affix(guard, self, args, false);
}
Value without_suffix(Guard& guard, const Value& self, Args args) {
  return without_affix(guard, self, args, true);
}

Value items(Guard& guard, const Value& self, Args) {
  return dict_items(guard, *self.dict(), SequenceKind::kView);
}
Value keys(Guard& guard, const Value& self, Args) {
  return make_sequence(guard, iterate(guard, self)->items, SequenceKind::kView);
}
Value values(Guard& guard, const Value& self, Args) {
  std::vector<Value> all;
  for (const auto& entry : self.dict()->entries) all.push_back(entry.second);
  return make_sequence(guard, std::move(all), SequenceKind::kView);
}
Value get(Guard& guard, const Value& self, Args args) {
  if (!is_hashable(guard, *args[0])) guard.fail("unhashable type: '" + type_name(*args[0]) + "'");
  if (const Value* found = find_key(guard, *self.dict(), *args[0])) return *found;
  return args[1] ? *args[1] : Value(None{});
}

constexpr Signature kNone = {};
constexpr Signature kSplit = {{"sep", "maxsplit"}, 0};
constexpr Signature kOptionalChars = {{"chars"}, 0};
constexpr Signature kOneText = {{"text"}, 1};

constexpr MethodEntry kMethods[] = {
    {"capitalize", false, kNone, mapped<Case::kCapital>},
    {"count", false, kOneText, count},
    {"endswith", false, kOneText, ends_with},
    {"find", false, kOneText, find},
    {"get", true, {{"key", "default"}, 1}, get},
    {"items", true, kNone, items},
    {"join", false, kOneText, joined},
    {"keys", true, kNone, keys},
    {"lower", false, kNone, mapped<Case::kLower>},
    {"lstrip", false, kOptionalChars, stripped<Side::kLeft>},
    {"removeprefix", false, kOneText, without_prefix},
    {"removesuffix", false, kOneText, without_suffix},
    {"replace", false, {{"old", "new", "count"}, 2}, replaced},
    {"rsplit", false, kSplit, split_from_right},
    {"rstrip", false, kOptionalChars, stripped<Side::kRight>},
    {"split", false, kSplit, split_left},
    {"startswith", false, kOneText, starts_with},
    {"strip", false, kOptionalChars, stripped<Side::kBoth>},
    {"title", false, kNone, mapped<Case::kTitle>},
    {"upper", false, kNone, mapped<Case::kUpper>},
    {"values", true, kNone, values},
};

}  // namespace

int Signature::size() const {
  return static_cast<int>(std::find(names.begin(), names.end(), "") - names.begin());
}

const MethodEntry* find_method(std::string_view name) {
  for (const MethodEntry& entry : kMethods) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

const MethodEntry* find_method(std::string_view name, const Value& self) {
  const MethodEntry* entry = find_method(name);
  if (!entry || (entry->of_dict ? !self.dict() : !self.text())) return nullptr;
  return entry;
}

Value split_text(Guard& guard, const Text& text, Args args, bool from_right) {
  const long max = count_argument(guard, args[1]);
  std::vector<Text> parts;
  if (!args[0] || args[0]->is<None>()) {
    if (from_right) guard.unsupported("rsplit without a separator");
    guard.charge(1 + text.size() / 4);
    parts = split_space(text, max);
  } else {
    const Text& separator = text_argument(guard, args[0]);
    if (separator.empty()) guard.fail("empty separator");
    // From the right, every position is compared.
    guard.charge(1 + text.size() / 16 * (from_right ? separator.size() : 1));
    // Before the parts exist: a part costs an allocation.
    guard.charge(8 * std::min<std::size_t>(max < 0 ? text.size() : max,
                                           count_occurrences(text.bytes(), separator.bytes())));
    parts = from_right ? split_right(text, separator.bytes(), max)
                       : split(text, separator.bytes(), max);
  }
  std::vector<Value> values_of_parts;
  for (Text& part : parts) values_of_parts.push_back(make_text(guard, std::move(part)));
  return make_sequence(guard, std::move(values_of_parts), SequenceKind::kList);
}

Value replace_text(Guard& guard, const Text& text, Args args) {
  const TextPtr from = to_text(guard, *args[0]);
  const TextPtr to = to_text(guard, *args[1]);
  const long max = args[2] && args[2]->is<None>() ? -1 : count_argument(guard, args[2]);
  guard.charge(1 + text.size() / 4);
  std::size_t n = count_occurrences(text.bytes(), from->bytes());
  if (max >= 0) n = std::min<std::size_t>(n, max);
  guard.check_text(n * to->size());  // n and the size are each far below 2^32
  guard.charge(n * (1 + to->runs().size() + to->size() / 16));
  return make_text(guard, replace(text, from->bytes(), *to, max));
}

Value strip_text(Guard& guard, const Text& text, Args args, Side side) {
  std::optional<std::string_view> chars;
  if (args[0] && !args[0]->is<None>()) chars = text_argument(guard, args[0]).bytes();
  guard.charge(1 + text.size() / 16 * (1 + (chars ? chars->size() : 0)));
  return make_text(guard, strip(text, side, chars));
}

Value change_case(Guard& guard, const Text& text, Case to) {
  guard.charge(1 + text.size() / 4);
  std::optional<Text> changed = map_case(text, to);
  if (!changed) guard.unsupported("upper and lower case of a letter in this text");
  return make_text(guard, std::move(*changed));
}

Value join_texts(Guard& guard, const Text& separator, const Value& items_to_join) {
  Text out;
  bool first = true;
  for (const Value& item : Elements(iterate(guard, items_to_join))) {
    const TextPtr part = to_text(guard, item);
    guard.check_text(out.size() + separator.size() + part->size());
    guard.charge(1 + (separator.size() + part->size()) / 16 + separator.runs().size());
    if (!first) out.append(separator);
    first = false;
    out.append(*part);
  }
  return make_text(guard, std::move(out));
}

Value dict_items(Guard& guard, const Dict& dict, SequenceKind kind) {
  std::vector<Value> pairs;
  for (const auto& [key, value] : dict.entries) {
    pairs.push_back(make_sequence(guard, {key, value}, SequenceKind::kTuple));
  }
  return make_sequence(guard, std::move(pairs), kind);
}

}  // namespace qwen::jinja
