// The values of a template: Python's, as far as chat templates meet them. Immutable once made,
// except namespaces; shared by pointer. Not shared between renderings, apart from the template's
// literals.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/chat_template/guard.h"
#include "core/chat_template/text.h"

namespace qwen::jinja {

// Python's integers have no bound; these hold every integer of a JSON document, and an operation
// that leaves their range is refused.
__extension__ typedef __int128 Int;

struct Undefined {
  const std::string* name = nullptr;  // of the variable or attribute, for the error; may be null
};
struct None {};

struct Stmt;         // ast.h: a macro is its definition
struct MethodEntry;  // builtins.h
struct Sequence;
struct Dict;
struct Namespace;
struct Loop;
struct Method;
enum class Function { kRaiseException, kRange, kNamespace, kDict, kStrftimeNow };

using TextPtr = std::shared_ptr<const Text>;
using SequencePtr = std::shared_ptr<const Sequence>;
using DictPtr = std::shared_ptr<const Dict>;
using MethodPtr = std::shared_ptr<const Method>;

template <class T, class Variant>
inline constexpr bool kIsAlternative = false;
template <class T, class... Ts>
inline constexpr bool kIsAlternative<T, std::variant<Ts...>> = (std::is_same_v<T, Ts> || ...);

struct Value {
  // Namespaces belong to the interpreter, which frees them all at the end: they can form cycles.
  using Data = std::variant<Undefined, None, bool, Int, double, TextPtr, SequencePtr, DictPtr,
                            Namespace*, const Loop*, const Stmt*, MethodPtr, Function>;
  Data data;

  Value() = default;
  // Exactly the types above: no pointer becomes a bool, no int becomes a double.
  template <class T>
  requires kIsAlternative<T, Data> Value(T value) : data(std::in_place_type<T>, std::move(value)) {}

  template <class T>
  bool is() const {
    return std::holds_alternative<T>(data);
  }
  template <class T>
  const T* as() const {
    return std::get_if<T>(&data);
  }
  // Null unless this is a string, a sequence, a dict.
  const Text* text() const { return as<TextPtr>() ? as<TextPtr>()->get() : nullptr; }
  const Sequence* sequence() const {
    return as<SequencePtr>() ? as<SequencePtr>()->get() : nullptr;
  }
  const Dict* dict() const { return as<DictPtr>() ? as<DictPtr>()->get() : nullptr; }
  bool is_undefined() const { return is<Undefined>(); }
};

enum class SequenceKind {
  kList,
  kTuple,
  kRange,
  kView,  // of a dict: has a length, no subscripts
  kOnce,  // a generator: no length, empty after the first reading
};

struct Sequence {
  SequenceKind kind = SequenceKind::kList;
  std::vector<Value> items;
  int depth = 1;
  mutable bool spent = false;  // a kOnce that has been read
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in the order given
  // String keys, views into entries. Sorted: whoever writes the template or the messages knows how
  // std::hash makes keys collide.
  std::map<std::string_view, std::size_t> by_text;
  int depth = 1;

  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::map<std::string, Value, std::less<>> attributes;
};

// The state of a running `for`, visible in its body as `loop`. Never leaves the loop's scope.
struct Loop {
  SequencePtr items;
  std::size_t index = 0;
};

// An attribute that is a Python method, such as text.strip; `entry` is null for a method that
// exists in Python only.
struct Method {
  const MethodEntry* entry;
  Value self;
};

Value make_text(Guard& guard, Text text);
// Text that does not stand in the template.
Value make_input_text(Guard& guard, std::string bytes);
Value make_sequence(Guard& guard, std::vector<Value> items, SequenceKind kind);
// A later entry of the same key replaces the value of the earlier one, as in Python. Fails for a
// key that Python cannot hash.
Value make_dict(Guard& guard, const std::vector<std::pair<Value, Value>>& entries);

// Python's name of the type, for errors.
std::string type_name(const Value& value);
int depth_of(const Value& value);
bool is_true(const Value& value);
// ==; charges for what it compares.
bool equals(Guard& guard, const Value& a, const Value& b);
bool is_hashable(Guard& guard, const Value& value);
// Dict lookup by any key; null if absent.
const Value* find_key(Guard& guard, const Dict& dict, const Value& key);
// An int or bool as Int, an int, bool or float as double.
const Int* as_int(const Value& value, Int& storage);
bool as_number(const Value& value, double& number);

// The elements of anything a `for` accepts; fails for others.
SequencePtr iterate(Guard& guard, const Value& value);

// For `for (const Value& element : Elements(iterate(...)))`: keeps the sequence alive meanwhile.
class Elements {
 public:
  explicit Elements(SequencePtr sequence) : sequence_(std::move(sequence)) {}
  auto begin() const { return sequence_->items.begin(); }
  auto end() const { return sequence_->items.end(); }

 private:
  SequencePtr sequence_;
};

}  // namespace qwen::jinja
