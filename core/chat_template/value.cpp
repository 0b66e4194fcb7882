#include "core/chat_template/value.h"

#include <algorithm>
#include <cmath>

#include "core/chat_template/text_ops.h"

namespace qwen::jinja {

const Value* Dict::find(std::string_view key) const {
  const auto found = by_text.find(key);
  return found == by_text.end() ? nullptr : &entries[found->second].second;
}

Value make_text(Guard& guard, Text text) {
  guard.charge_text(text.size());
  guard.charge(text.runs().size());
  return std::make_shared<const Text>(std::move(text));
}

Value make_input_text(Guard& guard, std::string bytes) {
  return make_text(guard, Text(std::move(bytes), false));
}

int depth_of(const Value& value) {
  if (const Sequence* sequence = value.sequence()) return sequence->depth;
  if (const Dict* dict = value.dict()) return dict->depth;
  if (const auto* method = value.as<MethodPtr>()) return 1 + depth_of((*method)->self);
  return 0;
}

namespace {

int checked_depth(Guard& guard, int depth) {
  if (depth > kMaxValueDepth) guard.too_deep("lists or mappings nested too deeply");
  return depth;
}

}  // namespace

Value make_sequence(Guard& guard, std::vector<Value> items, SequenceKind kind) {
  guard.charge(1 + items.size());
  auto sequence = std::make_shared<Sequence>();
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, depth_of(item));
  sequence->depth = checked_depth(guard, depth + 1);
  sequence->kind = kind;
  sequence->items = std::move(items);
  return SequencePtr(std::move(sequence));
}

Value make_dict(Guard& guard, const std::vector<std::pair<Value, Value>>& entries) {
  guard.charge(1 + 4 * entries.size());
  auto dict = std::make_shared<Dict>();
  int depth = 0;
  dict->entries.reserve(entries.size());
  for (const auto& [key, value] : entries) {
    if (!is_hashable(guard, key)) guard.fail("unhashable type: '" + type_name(key) + "'");
    depth = std::max({depth, depth_of(key), depth_of(value)});
    if (const Value* earlier = find_key(guard, *dict, key)) {
      const_cast<Value&>(*earlier) = value;
      continue;
    }
    const Text* text = key.text();
    if (text) dict->by_text.emplace(text->bytes(), dict->entries.size());
    dict->entries.emplace_back(key, value);
  }
  dict->depth = checked_depth(guard, depth + 1);
  return DictPtr(std::move(dict));
}

std::string type_name(const Value& value) {
  struct Namer {
    std::string operator()(Undefined) const { return "Undefined"; }
    std::string operator()(None) const { return "NoneType"; }
    std::string operator()(bool) const { return "bool"; }
    std::string operator()(Int) const { return "int"; }
    std::string operator()(double) const { return "float"; }
    std::string operator()(const TextPtr&) const { return "str"; }
    std::string operator()(const SequencePtr& s) const {
      switch (s->kind) {
        case SequenceKind::kList:
          return "list";
        case SequenceKind::kTuple:
          return "tuple";
        case SequenceKind::kRange:
          return "range";
        case SequenceKind::kView:
          return "dict view";
        case SequenceKind::kOnce:
          return "generator";
      }
      return "sequence";
    }
    std::string operator()(const DictPtr&) const { return "dict"; }
    std::string operator()(Namespace*) const { return "namespace"; }
    std::string operator()(const Loop*) const { return "loop"; }
    std::string operator()(const Stmt*) const { return "macro"; }
    std::string operator()(const MethodPtr&) const { return "method"; }
    std::string operator()(Function) const { return "function"; }
  };
  return std::visit(Namer{}, value.data);
}

bool is_true(const Value& value) {
  if (value.is<Undefined>() || value.is<None>()) return false;
  if (const bool* b = value.as<bool>()) return *b;
  if (const Int* i = value.as<Int>()) return *i != 0;
  if (const double* d = value.as<double>()) return *d != 0;
  if (const Text* text = value.text()) return !text->empty();
  if (const Sequence* s = value.sequence()) {
    return s->kind == SequenceKind::kOnce || !s->items.empty();
  }
  if (const Dict* dict = value.dict()) return !dict->entries.empty();
  return true;
}

const Int* as_int(const Value& value, Int& storage) {
  if (const bool* b = value.as<bool>()) {
    storage = *b ? 1 : 0;
    return &storage;
  }
  return value.as<Int>();
}

bool as_number(const Value& value, double& number) {
  Int storage = 0;
  if (const double* d = value.as<double>()) {
    number = *d;
  } else if (const Int* i = as_int(value, storage)) {
    number = static_cast<double>(*i);
  } else {
    return false;
  }
  return true;
}

bool is_hashable(Guard& guard, const Value& value) {
  guard.charge(1);
  if (const Sequence* s = value.sequence()) {
    const bool by_identity = s->kind == SequenceKind::kRange || s->kind == SequenceKind::kOnce;
    if (s->kind != SequenceKind::kTuple) return by_identity;
    return std::all_of(s->items.begin(), s->items.end(),
                       [&](const Value& item) { return is_hashable(guard, item); });
  }
  return !value.dict();
}

const Value* find_key(Guard& guard, const Dict& dict, const Value& key) {
  if (const Text* text = key.text()) {
    guard.charge_bytes(text->size());
    return dict.find(text->bytes());
  }
  if (dict.entries.size() == dict.by_text.size()) return nullptr;
  for (const auto& [k, v] : dict.entries) {
    if (equals(guard, k, key)) return &v;
  }
  return nullptr;
}

bool equals(Guard& guard, const Value& a, const Value& b) {
  guard.charge(1);
  Int storage_a = 0;
  Int storage_b = 0;
  const Int* int_a = as_int(a, storage_a);
  const Int* int_b = as_int(b, storage_b);
  if (int_a && int_b) return *int_a == *int_b;
  double number_a = 0;
  double number_b = 0;
  if (as_number(a, number_a) && as_number(b, number_b)) return number_a == number_b;
  if (a.data.index() != b.data.index()) return false;
  if (const Text* text = a.text()) {
    if (text->size() != b.text()->size()) return false;
    guard.charge_bytes(text->size());
    return text->bytes() == b.text()->bytes();
  }
  if (const Sequence* s = a.sequence()) {
    const Sequence* t = b.sequence();
    if (s == t) return true;
    if (s->kind != t->kind || s->items.size() != t->items.size()) return false;
    if (s->kind == SequenceKind::kView || s->kind == SequenceKind::kOnce) return false;
    for (std::size_t i = 0; i < s->items.size(); ++i) {
      if (!equals(guard, s->items[i], t->items[i])) return false;
    }
    return true;
  }
  if (const Dict* d = a.dict()) {
    if (d->entries.size() != b.dict()->entries.size()) return false;
    for (const auto& [key, value] : d->entries) {
      const Value* other = find_key(guard, *b.dict(), key);
      if (!other || !equals(guard, value, *other)) return false;
    }
    return true;
  }
  if (a.is<Undefined>() || a.is<None>()) return true;
  if (a.is<Namespace*>()) return *a.as<Namespace*>() == *b.as<Namespace*>();
  if (a.is<const Stmt*>()) return *a.as<const Stmt*>() == *b.as<const Stmt*>();
  if (a.is<Function>()) return *a.as<Function>() == *b.as<Function>();
  return false;
}

SequencePtr iterate(Guard& guard, const Value& value) {
  if (const auto* sequence = value.as<SequencePtr>()) {
    if ((*sequence)->kind != SequenceKind::kOnce) return *sequence;
    if ((*sequence)->spent) return std::make_shared<Sequence>();
    (*sequence)->spent = true;
    return *sequence;
  }
  auto items = std::make_shared<Sequence>();
  if (const Dict* dict = value.dict()) {
    guard.charge(dict->entries.size());
    for (const auto& [key, unused] : dict->entries) items->items.push_back(key);
  } else if (const Text* text = value.text()) {
    guard.charge_bytes(text->size());
    guard.charge(8 * count_code_points(text->bytes()));  // an allocation each
    const std::vector<std::size_t> offsets = code_point_offsets(text->bytes());
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      items->items.emplace_back(
          std::make_shared<const Text>(text->slice(offsets[i], offsets[i + 1])));
    }
  } else if (!value.is_undefined()) {
    guard.fail("'" + type_name(value) + "' object is not iterable");
  }
  return items;
}

}  // namespace qwen::jinja
