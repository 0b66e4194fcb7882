// Operators, attributes and subscripts with Python's meaning. All charge for their work and fail
// where Python or Jinja raises an exception.
#pragma once

#include <string>
#include <string_view>

#include "core/chat_template/value.h"

namespace qwen::jinja {

enum class Op {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

// The first seven.
Value arithmetic(Guard& guard, Op op, const Value& a, const Value& b);
Value negate(Guard& guard, const Value& value);
Value positive(Guard& guard, const Value& value);
// The others.
bool compare(Guard& guard, Op op, const Value& a, const Value& b);
bool contains(Guard& guard, const Value& container, const Value& item);

// value.name and value[key] as Jinja looks them up; undefined if there is none. `name` outlives the
// value: it is kept for the error message of an undefined result.
Value attribute(Guard& guard, const Value& value, const std::string& name);
Value item(Guard& guard, const Value& value, const Value& key);
// value[start:stop:step], null for a part left out.
Value slice(Guard& guard, const Value& value, const Value* start, const Value* stop,
            const Value* step);
// "a.b.0", as the filters map, selectattr and join take it.
Value attribute_path(Guard& guard, Value value, std::string_view path);
// A use of an undefined value that Jinja does not allow.
[[noreturn]] void fail_undefined(Guard& guard, const Value& value);

}  // namespace qwen::jinja
