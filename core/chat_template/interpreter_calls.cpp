// Filters, tests, methods, functions and macros.
#include <algorithm>
#include <array>
#include <ctime>
#include <utility>

#include "core/chat_template/format.h"
#include "core/chat_template/interpreter_scope.h"

namespace qwen::jinja {

// The children from `first` on; an empty slot for a parameter that is not given.
std::vector<std::optional<Value>> Interpreter::eval_slots(const Expr& expr, std::size_t first) {
  std::vector<std::optional<Value>> slots;
  for (std::size_t i = first; i < expr.children.size(); ++i) {
    slots.emplace_back();
    if (expr.children[i]) slots.back() = eval(*expr.children[i]);
  }
  return slots;
}

bool Interpreter::holds(const Test* test, const Value& value, Args args) {
  guard_.charge(1);
  return test ? test->holds(guard_, value, args) : is_true(value);
}

Value Interpreter::eval_test(const Expr& expr) {
  const Value value = eval_object(*expr.children[0]);
  const auto args = eval_slots(expr, 1);
  guard_.at = expr.at;
  return holds(expr.test, value, args);
}

Value Interpreter::eval_filter(const Expr& expr) {
  const Value input = eval(*expr.children[0]);
  const auto args = eval_slots(expr, 1);
  guard_.at = expr.at;
  return expr.filter->apply(guard_, input, args);
}

Value Interpreter::eval_map(const Expr& expr) {
  const Value input = eval(*expr.children[0]);
  const auto args = eval_slots(expr, 1);
  guard_.at = expr.at;
  std::vector<Value> mapped;
  for (const Value& element : Elements(iterate(guard_, input))) {
    guard_.charge(1);
    if (expr.kind == ExprKind::kMapFilter) {
      mapped.push_back(expr.filter->apply(guard_, element, args));
      continue;
    }
    const Value found = attribute_path(guard_, element, expr.name);
    mapped.push_back(found.is_undefined() && args[0] ? *args[0] : found);
  }
  return make_sequence(guard_, std::move(mapped), SequenceKind::kOnce);
}

Value Interpreter::eval_select(const Expr& expr) {
  const Value input = eval(*expr.children[0]);
  const auto args = eval_slots(expr, 1);
  guard_.at = expr.at;
  std::vector<Value> kept;
  for (const Value& element : Elements(iterate(guard_, input))) {
    const Value tested = expr.name.empty() ? element : attribute_path(guard_, element, expr.name);
    if (holds(expr.test, tested, args) != expr.negated) kept.push_back(element);
  }
  return make_sequence(guard_, std::move(kept), SequenceKind::kOnce);
}

Value Interpreter::call_method(const Expr& expr) {
  const Value self = eval_object(*expr.children[0]);
  const auto args = eval_slots(expr, 1);
  guard_.at = expr.at;
  if (self.is_undefined()) fail_undefined(guard_, self);
  if (find_method(expr.name, self) != expr.method) {
    if (attribute(guard_, self, expr.name).is<MethodPtr>()) {
      guard_.unsupported("the method '" + expr.name + "' of a " + type_name(self));
    }
    guard_.fail("'" + type_name(self) + "' object has no method '" + expr.name + "'");
  }
  return expr.method->call(guard_, self, args);
}

Value Interpreter::call_loop_cycle(const Expr& expr) {
  const Value object = lookup(*expr.children[0]);
  if (!object.is<const Loop*>()) guard_.fail("'loop' is undefined");
  std::vector<Value> values;
  for (std::size_t i = 1; i < expr.children.size(); ++i) values.push_back(eval(*expr.children[i]));
  return values[(*object.as<const Loop*>())->index % values.size()];
}

Value Interpreter::call_function(const Expr& expr) {
  const Value callee = lookup(expr);
  if (callee.is<const Stmt*>()) return call_macro(expr, **callee.as<const Stmt*>());
  std::vector<Value> args;
  for (const ExprPtr& child : expr.children) args.push_back(eval(*child));
  guard_.at = expr.at;
  const Function* function = callee.as<Function>();
  if (callee.is_undefined()) fail_undefined(guard_, callee);
  if (!function) guard_.fail("'" + type_name(callee) + "' object is not callable");
  if (*function == Function::kNamespace) return call_namespace(expr, std::move(args));
  if (*function == Function::kDict) return call_dict(expr, std::move(args));
  if (!expr.keywords.empty()) guard_.fail("unexpected named argument '" + expr.keywords[0] + "'");
  if (*function == Function::kRange) return call_range(args);
  if (*function == Function::kStrftimeNow) return call_strftime_now(args);
  call_raise(args);
}

Value Interpreter::call_macro(const Expr& expr, const Stmt& macro) {
  const std::size_t n_positional = expr.children.size() - expr.keywords.size();
  if (n_positional > macro.names.size()) {
    guard_.fail("macro '" + macro.name + "' takes at most " + std::to_string(macro.names.size()) +
                " arguments");
  }
  guard_.charge(2 * macro.names.size());
  Scope scope;  // filled before it is entered: the arguments belong to the caller
  for (std::size_t i = 0; i < expr.children.size(); ++i) {
    Value value = eval(*expr.children[i]);
    guard_.at = expr.at;
    std::string_view name;
    if (i < n_positional) {
      name = macro.names[i];
    } else {
      const std::string& keyword = expr.keywords[i - n_positional];
      guard_.charge(1 + macro.names.size() / 8);
      const auto found = std::find(macro.names.begin(), macro.names.end(), keyword);
      if (found == macro.names.end()) guard_.fail("macro has no argument '" + keyword + "'");
      if (scope.contains(*found)) guard_.fail("argument '" + keyword + "' is given twice");
      name = *found;
    }
    scope[name] = std::move(value);
  }
  const Inner inner(*this);
  scopes_.back() = std::move(scope);
  const std::size_t outer_base = std::exchange(macro_base_, scopes_.size() - 1);
  const std::size_t n_plain = macro.names.size() - macro.exprs.size();
  for (std::size_t i = 0; i < macro.names.size(); ++i) {
    if (scopes_.back().contains(macro.names[i])) continue;
    Value value = Undefined{&macro.names[i]};
    if (i >= n_plain) value = eval(*macro.exprs[i - n_plain]);
    scopes_.back()[macro.names[i]] = std::move(value);
  }
  Value text = make_text(guard_, capture(macro.blocks[0]));
  macro_base_ = outer_base;
  return text;
}

Value Interpreter::call_range(const std::vector<Value>& args) {
  std::array<Int, 3> given = {0, 0, 1};
  if (args.empty() || args.size() > 3) guard_.fail("range() takes 1 to 3 arguments");
  for (std::size_t i = 0; i < args.size(); ++i) {
    Int storage = 0;
    const Int* number = as_int(args[i], storage);
    if (args[i].is_undefined()) fail_undefined(guard_, args[i]);
    if (!number) guard_.fail("range() needs integers, not " + type_name(args[i]));
    constexpr Int kFar = Int{1} << 100;
    if (*number > kFar || *number < -kFar) guard_.unsupported("an integer of more than 100 bits");
    given[args.size() == 1 ? 1 : i] = *number;
  }
  const auto [start, stop, step] = given;
  if (step == 0) guard_.fail("range() arg 3 must not be zero");
  const Int distance = step > 0 ? stop - start : start - stop;
  const Int stride = step > 0 ? step : -step;
  const Int n = distance > 0 ? (distance + stride - 1) / stride : 0;
  if (n > kMaxRange) guard_.fail("range() of more than " + std::to_string(kMaxRange) + " numbers");
  guard_.charge(static_cast<std::uint64_t>(n));
  std::vector<Value> items;
  for (Int i = 0; i < n; ++i) items.push_back(start + i * step);
  return make_sequence(guard_, std::move(items), SequenceKind::kRange);
}

namespace {

// What dict(...) and namespace(...) are made of: a mapping, then named values.
std::vector<std::pair<Value, Value>> entries_of(Guard& guard, const Expr& expr,
                                                std::vector<Value> args) {
  std::vector<std::pair<Value, Value>> entries;
  const std::size_t n_positional = args.size() - expr.keywords.size();
  if (n_positional > 1) guard.fail("at most one positional argument is allowed");
  if (n_positional == 1) {
    if (!args[0].dict()) guard.unsupported("a mapping made from a " + type_name(args[0]));
    entries = args[0].dict()->entries;
    guard.charge(4 * entries.size());
  }
  for (std::size_t i = 0; i < expr.keywords.size(); ++i) {
    entries.emplace_back(make_text(guard, Text(expr.keywords[i], true)),
                         std::move(args[n_positional + i]));
  }
  return entries;
}

}  // namespace

Value Interpreter::call_namespace(const Expr& expr, std::vector<Value> args) {
  guard_.charge(8);
  Namespace& space = namespaces_.emplace_back();
  for (auto& [key, value] : entries_of(guard_, expr, std::move(args))) {
    if (const Text* name = key.text()) space.attributes[name->bytes()] = std::move(value);
  }
  return &space;
}

Value Interpreter::call_dict(const Expr& expr, std::vector<Value> args) {
  return make_dict(guard_, entries_of(guard_, expr, std::move(args)));
}

Value Interpreter::call_strftime_now(const std::vector<Value>& args) {
  if (args.size() != 1 || !args[0].text()) guard_.fail("strftime_now() needs a format string");
  const std::string& format = args[0].text()->bytes();
  if (format.empty()) return make_input_text(guard_, "");
  const auto now = static_cast<std::time_t>(clock_());
  std::tm local{};
  if (!::localtime_r(&now, &local)) guard_.fail("the local time is not known");
  std::array<char, 1024> buffer;
  const std::size_t n = format.find('\0') == std::string::npos
                            ? std::strftime(buffer.data(), buffer.size(), format.c_str(), &local)
                            : 0;
  if (n == 0) guard_.unsupported("a date format with a long, empty or broken result");
  return make_input_text(guard_, std::string(buffer.data(), n));
}

void Interpreter::call_raise(const std::vector<Value>& args) {
  if (args.size() != 1) guard_.fail("raise_exception() takes one argument");
  fail_at(guard_.at, Exit::kUsage, "template_raised", to_text(guard_, args[0])->bytes(),
          "the model's chat template does not accept these messages");
}

}  // namespace qwen::jinja
