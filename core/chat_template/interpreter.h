// Runs a parsed template over its variables.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/chat_template/ast.h"
#include "core/chat_template/guard.h"
#include "core/chat_template/value.h"

namespace qwen::jinja {

using Variables = std::map<std::string, Value, std::less<>>;

// One rendering. `clock` gives strftime_now its time, in seconds since 1970.
class Interpreter {
 public:
  Interpreter(const Variables& variables, Limits limits, std::function<std::int64_t()> clock);

  // Throws Error: template_failed and template_raised where Jinja raises an exception,
  // template_unsupported, template_limit, template_too_deep.
  Text run(const Block& block);

 private:
  enum class Flow { kNext, kBreak, kContinue };
  using Scope = std::map<std::string_view, Value>;
  // Counts evaluations inside each other, and makes errors name the place.
  class Enter;
  // A scope that ends with the C++ scope.
  class Inner;

  // Statements
  Flow exec(const Block& block);
  Flow exec(const Stmt& stmt);
  Flow exec_if(const Stmt& stmt);
  Flow exec_for(const Stmt& stmt);
  void print(const Text& text);
  Text capture(const Block& block);
  Value capture_inner(const Block& block);  // in a scope of its own
  void assign(const Target& target, Value value, Location at);
  Value filtered(const Stmt& stmt, const Value& items);

  // Expressions (interpreter_expressions.cpp)
  Value eval(const Expr& expr);
  Value eval_in(const Expr& expr);
  // As eval, but `loop` is allowed: for what only looks at it.
  Value eval_object(const Expr& expr);
  Value lookup(const Expr& expr);
  Value eval_items(const Expr& expr);
  Value eval_subscript(const Expr& expr);
  Value eval_slice(const Expr& expr);
  Value eval_compare(const Expr& expr);
  Value eval_concat(const Expr& expr);

  // Calls (interpreter_calls.cpp)
  std::vector<std::optional<Value>> eval_slots(const Expr& expr, std::size_t first);
  bool holds(const Test* test, const Value& value, Args args);
  Value eval_test(const Expr& expr);
  Value eval_filter(const Expr& expr);
  Value eval_map(const Expr& expr);
  Value eval_select(const Expr& expr);
  Value call_method(const Expr& expr);
  Value call_loop_cycle(const Expr& expr);
  Value call_function(const Expr& expr);
  Value call_macro(const Expr& expr, const Stmt& macro);
  Value call_range(const std::vector<Value>& args);
  Value call_namespace(const Expr& expr, std::vector<Value> args);
  Value call_dict(const Expr& expr, std::vector<Value> args);
  Value call_strftime_now(const std::vector<Value>& args);
  [[noreturn]] void call_raise(const std::vector<Value>& args);

  const Variables& variables_;
  Guard guard_;
  std::function<std::int64_t()> clock_;
  int depth_ = 0;
  // Innermost last. A macro sees the first (the template's own) and those from macro_base_ on.
  std::vector<Scope> scopes_;
  std::size_t macro_base_ = 0;
  std::deque<Namespace> namespaces_;
  Text* out_ = nullptr;
};

}  // namespace qwen::jinja
