// Tests: the names after `is`.
#include <cmath>

#include "core/chat_template/builtins.h"
#include "core/chat_template/operators.h"

namespace qwen::jinja {

namespace {

// value % by == remainder
bool leaves(Guard& guard, const Value& value, const Value& by, Int remainder) {
  return equals(guard, arithmetic(guard, Op::kModulo, value, by), remainder);
}

template <Op kOp>
bool compares(Guard& guard, const Value& value, Args args) {
  return compare(guard, kOp, value, *args[0]);
}

bool is_bool(const Value& value, bool wanted) {
  return value.is<bool>() && *value.as<bool>() == wanted;
}

bool is_iterable(const Value& value) {
  return value.text() || value.sequence() || value.dict() || value.is_undefined();
}

// Python's `is`, where that is a question of the value: true, false and none.
bool is_same(Guard& guard, const Value& a, const Value& b) {
  if (a.data.index() != b.data.index()) return false;
  if (a.is<None>() || a.is<bool>()) return equals(guard, a, b);
  guard.unsupported("sameas for anything but true, false and none");
}

constexpr Test kTests[] = {
    {"boolean", 0, [](Guard&, const Value& v, Args) { return v.is<bool>(); }},
    {"defined", 0, [](Guard&, const Value& v, Args) { return !v.is_undefined(); }},
    {"divisibleby", 1, [](Guard& g, const Value& v, Args a) { return leaves(g, v, *a[0], 0); }},
    {"eq", 1, compares<Op::kEqual>},
    {"equalto", 1, compares<Op::kEqual>},
    {"even", 0, [](Guard& g, const Value& v, Args) { return leaves(g, v, Int(2), 0); }},
    {"false", 0, [](Guard&, const Value& v, Args) { return is_bool(v, false); }},
    {"float", 0, [](Guard&, const Value& v, Args) { return v.is<double>(); }},
    {"ge", 1, compares<Op::kGreaterEqual>},
    {"gt", 1, compares<Op::kGreater>},
    {"in", 1, compares<Op::kIn>},
    {"integer", 0, [](Guard&, const Value& v, Args) { return v.is<Int>(); }},
    {"iterable", 0, [](Guard&, const Value& v, Args) { return is_iterable(v); }},
    {"le", 1, compares<Op::kLessEqual>},
    {"lt", 1, compares<Op::kLess>},
    {"mapping", 0, [](Guard&, const Value& v, Args) { return v.dict() != nullptr; }},
    {"ne", 1, compares<Op::kNotEqual>},
    {"none", 0, [](Guard&, const Value& v, Args) { return v.is<None>(); }},
    {"number", 0,
     [](Guard&, const Value& v, Args) { return v.is<bool>() || v.is<Int>() || v.is<double>(); }},
    {"odd", 0, [](Guard& g, const Value& v, Args) { return leaves(g, v, Int(2), 1); }},
    {"sameas", 1, [](Guard& g, const Value& v, Args a) { return is_same(g, v, *a[0]); }},
    {"sequence", 0,
     [](Guard&, const Value& v, Args) {
       const Sequence* s = v.sequence();
       return s ? s->kind <= SequenceKind::kRange : is_iterable(v);
     }},
    {"string", 0, [](Guard&, const Value& v, Args) { return v.text() != nullptr; }},
    {"true", 0, [](Guard&, const Value& v, Args) { return is_bool(v, true); }},
    {"undefined", 0, [](Guard&, const Value& v, Args) { return v.is_undefined(); }},
};

}  // namespace

const Test* find_test(std::string_view name) {
  for (const Test& test : kTests) {
    if (test.name == name) return &test;
  }
  return nullptr;
}

std::optional<Function> find_function(std::string_view name) {
  if (name == "raise_exception") return Function::kRaiseException;
  if (name == "range") return Function::kRange;
  if (name == "namespace") return Function::kNamespace;
  if (name == "dict") return Function::kDict;
  if (name == "strftime_now") return Function::kStrftimeNow;
  return std::nullopt;
}

}  // namespace qwen::jinja
