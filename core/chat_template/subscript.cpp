// Attributes, subscripts and slices.
#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "core/chat_template/builtins.h"
#include "core/chat_template/operators.h"
#include "core/chat_template/text_ops.h"

namespace qwen::jinja {

namespace {

// Names that Python's types answer to before Jinja looks at the data: `message.items` is the method
// even where the mapping has a key of that name.
constexpr std::array<std::string_view, 47> kStrMethods = {
    "capitalize",   "casefold",    "center",    "count",      "encode",       "endswith",
    "expandtabs",   "find",        "format",    "format_map", "index",        "isalnum",
    "isalpha",      "isascii",     "isdecimal", "isdigit",    "isidentifier", "islower",
    "isnumeric",    "isprintable", "isspace",   "istitle",    "isupper",      "join",
    "ljust",        "lower",       "lstrip",    "maketrans",  "partition",    "removeprefix",
    "removesuffix", "replace",     "rfind",     "rindex",     "rjust",        "rpartition",
    "rsplit",       "rstrip",      "split",     "splitlines", "startswith",   "strip",
    "swapcase",     "title",       "translate", "upper",      "zfill"};
constexpr std::array<std::string_view, 6> kDictMethods = {"copy",  "fromkeys", "get",
                                                          "items", "keys",     "values"};
// The sandbox hides what would change the mapping: undefined, even where there is such a key.
constexpr std::array<std::string_view, 5> kHiddenDictMethods = {"clear", "pop", "popitem",
                                                                "setdefault", "update"};
// The sandbox hides those that change the list: append, clear, extend, insert, pop, ...
constexpr std::array<std::string_view, 3> kListMethods = {"copy", "count", "index"};

template <std::size_t N>
bool has(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_python_method(const Value& value, std::string_view name) {
  if (value.text()) return has(kStrMethods, name);
  if (value.dict()) return has(kDictMethods, name);
  if (const Sequence* s = value.sequence()) {
    if (s->kind == SequenceKind::kList) return has(kListMethods, name);
    return s->kind != SequenceKind::kView && s->kind != SequenceKind::kOnce && name != "copy" &&
           has(kListMethods, name);
  }
  return false;
}

Value method(Guard& guard, const Value& value, std::string_view name) {
  guard.charge(2);
  return MethodPtr(std::make_shared<const Method>(Method{find_method(name, value), value}));
}

Value loop_attribute(const Loop& loop, const std::string& name) {
  const std::vector<Value>& items = loop.items->items;
  const std::size_t i = loop.index;
  const std::size_t n = items.size();
  const Value absent(Undefined{&name});
  if (name == "index") return Int(i + 1);
  if (name == "index0") return Int(i);
  if (name == "revindex") return Int(n - i);
  if (name == "revindex0") return Int(n - i - 1);
  if (name == "first") return i == 0;
  if (name == "last") return i + 1 == n;
  if (name == "length") return Int(n);
  if (name == "depth") return Int(1);  // loops are never recursive here
  if (name == "depth0") return Int(0);
  if (name == "previtem") return i > 0 ? items[i - 1] : absent;
  if (name == "nextitem") return i + 1 < n ? items[i + 1] : absent;
  return absent;
}

// Python's index rule; npos if out of range.
std::size_t position(Int index, std::size_t n) {
  if (index < 0) index += static_cast<Int>(n);
  if (index < 0 || index >= static_cast<Int>(n)) return std::string_view::npos;
  return static_cast<std::size_t>(index);
}

}  // namespace

Value attribute(Guard& guard, const Value& value, const std::string& name) {
  if (value.is_undefined()) fail_undefined(guard, value);
  if (is_python_method(value, name)) return method(guard, value, name);
  if (const Dict* dict = value.dict()) {
    const Value* found = has(kHiddenDictMethods, name) ? nullptr : dict->find(name);
    if (found) return *found;
  } else if (value.is<Namespace*>()) {
    const auto& attributes = (*value.as<Namespace*>())->attributes;
    const auto found = attributes.find(name);
    if (found != attributes.end()) return found->second;
  } else if (value.is<const Loop*>()) {
    return loop_attribute(**value.as<const Loop*>(), name);
  }
  return Undefined{&name};
}

Value item(Guard& guard, const Value& value, const Value& key) {
  if (value.is_undefined()) fail_undefined(guard, value);
  Int storage = 0;
  const Int* index = as_int(key, storage);
  if (const Dict* dict = value.dict()) {
    const Value* found = is_hashable(guard, key) ? find_key(guard, *dict, key) : nullptr;
    if (found) return *found;
  } else if (const Text* text = value.text(); text && index) {
    const std::string_view bytes = text->bytes();
    guard.charge_bytes(bytes.size());
    std::size_t at = position(*index, count_code_points(bytes));
    if (at == std::string_view::npos) return Undefined{};
    std::size_t begin = 0;
    for (; at > 0; --at) next_code_point(bytes, begin);
    std::size_t end = begin;
    next_code_point(bytes, end);
    return make_text(guard, text->slice(begin, end));
  } else if (const Sequence* s = value.sequence(); s && index) {
    const std::size_t at = s->kind <= SequenceKind::kRange ? position(*index, s->items.size())
                                                           : std::string_view::npos;
    return at == std::string_view::npos ? Value() : s->items[at];
  }
  const Text* name = key.text();
  if (!name) return Undefined{};
  if (is_python_method(value, name->bytes())) return method(guard, value, name->bytes());
  if (value.is<Namespace*>() || value.is<const Loop*>()) {
    Value found = attribute(guard, value, name->bytes());
    if (!found.is_undefined()) return found;
  }
  return Undefined{};
}

Value attribute_path(Guard& guard, Value value, std::string_view path) {
  for (bool more = true; more;) {
    const std::size_t dot = path.find('.');
    more = dot != std::string_view::npos;
    const std::string_view part = path.substr(0, dot);
    if (more) path.remove_prefix(dot + 1);
    guard.charge(1 + part.size() / 16);
    std::int64_t index = 0;
    const auto number = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = !part.empty() && part[0] != '-' && number.ec == std::errc{} &&
                          number.ptr == part.data() + part.size();
    value = item(guard, value,
                 is_index ? Value(Int(index))
                          : Value(TextPtr(std::make_shared<const Text>(std::string(part), true))));
  }
  return value;
}

Value slice(Guard& guard, const Value& value, const Value* start, const Value* stop,
            const Value* step) {
  const Text* text = value.text();
  const Sequence* sequence = value.sequence();
  if (value.is_undefined()) fail_undefined(guard, value);
  if (!text && !(sequence && sequence->kind <= SequenceKind::kRange)) {
    guard.fail("'" + type_name(value) + "' object cannot be sliced");
  }
  const auto part = [&](const Value* v, Int standard) {
    Int storage = 0;
    if (!v || v->is<None>()) return standard;
    const Int* given = as_int(*v, storage);
    if (!given) guard.fail("slice indices must be integers or none, not " + type_name(*v));
    // Beyond any length; the sums below stay in range.
    constexpr Int kFar = Int{1} << 62;
    return std::clamp(*given, -kFar, kFar);
  };
  std::vector<std::size_t> offsets;
  if (text) {
    guard.charge(1 + text->size() / 4);
    offsets = code_point_offsets(text->bytes());
  }
  const Int n = static_cast<Int>(text ? offsets.size() - 1 : sequence->items.size());
  const Int by = part(step, 1);
  if (by == 0) guard.fail("slice step cannot be zero");
  // CPython's PySlice_AdjustIndices
  const auto bound = [&](const Value* v, Int standard) {
    Int at = part(v, standard);
    if (!v || v->is<None>()) return at;
    if (at < 0) at += n;
    return by > 0 ? std::clamp(at, Int{0}, n) : std::clamp(at, Int{-1}, n - 1);
  };
  const Int begin = bound(start, by > 0 ? 0 : n - 1);
  const Int end = bound(stop, by > 0 ? n : -1);
  if (text) {
    Text out;
    if (by == 1) {
      if (begin < end) out = text->slice(offsets[begin], offsets[end]);
    } else {
      for (Int i = begin; by > 0 ? i < end : i > end; i += by) {
        out.append(*text, offsets[i], offsets[i + 1]);
      }
    }
    return make_text(guard, std::move(out));
  }
  std::vector<Value> items;
  for (Int i = begin; by > 0 ? i < end : i > end; i += by) items.push_back(sequence->items[i]);
  return make_sequence(guard, std::move(items), sequence->kind);
}

}  // namespace qwen::jinja
