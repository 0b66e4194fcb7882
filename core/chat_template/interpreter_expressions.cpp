#include <utility>

#include "core/chat_template/format.h"
#include "core/chat_template/interpreter_scope.h"

namespace qwen::jinja {

Value Interpreter::lookup(const Expr& expr) {
  for (std::size_t i = scopes_.size(); i-- > 0;) {
    if (i != 0 && i < macro_base_) continue;
    if (i % 8 == 7) guard_.charge(1);
    const auto found = scopes_[i].find(expr.name);
    if (found != scopes_[i].end()) return found->second;
  }
  const auto found = variables_.find(expr.name);
  if (found != variables_.end()) return found->second;
  if (const auto function = find_function(expr.name)) return *function;
  return Undefined{&expr.name};
}

Value Interpreter::eval(const Expr& expr) {
  const Enter enter(*this, expr.at);
  return eval_in(expr);
}

Value Interpreter::eval_object(const Expr& expr) {
  return expr.kind == ExprKind::kName ? lookup(expr) : eval(expr);
}

Value Interpreter::eval_in(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::kLiteral:
      return expr.literal;
    case ExprKind::kName: {
      Value value = lookup(expr);
      // It would outlive the loop.
      if (value.is<const Loop*>()) guard_.unsupported("'loop' other than as loop.attribute");
      return value;
    }
    case ExprKind::kList:
    case ExprKind::kTuple:
    case ExprKind::kDict:
      return eval_items(expr);
    case ExprKind::kAttribute: {
      const Value object = eval_object(*expr.children[0]);
      guard_.at = expr.at;
      return attribute(guard_, object, expr.name);
    }
    case ExprKind::kSubscript:
      return eval_subscript(expr);
    case ExprKind::kSlice:
      return eval_slice(expr);
    case ExprKind::kCallMethod:
      return call_method(expr);
    case ExprKind::kCallLoopCycle:
      return call_loop_cycle(expr);
    case ExprKind::kCallFunction:
      return call_function(expr);
    case ExprKind::kFilter:
      return eval_filter(expr);
    case ExprKind::kTest:
      return eval_test(expr);
    case ExprKind::kMapFilter:
    case ExprKind::kMapAttribute:
      return eval_map(expr);
    case ExprKind::kSelect:
      return eval_select(expr);
    case ExprKind::kNegate:
    case ExprKind::kPositive: {
      const Value value = eval(*expr.children[0]);
      guard_.at = expr.at;
      return expr.kind == ExprKind::kNegate ? negate(guard_, value) : positive(guard_, value);
    }
    case ExprKind::kNot:
      return !is_true(eval(*expr.children[0]));
    case ExprKind::kAnd:
    case ExprKind::kOr: {
      Value left = eval(*expr.children[0]);
      if (is_true(left) == (expr.kind == ExprKind::kOr)) return left;
      return eval(*expr.children[1]);
    }
    case ExprKind::kCondition:
      if (is_true(eval(*expr.children[1]))) return eval(*expr.children[0]);
      return expr.children[2] ? eval(*expr.children[2]) : Value();
    case ExprKind::kCompare:
      return eval_compare(expr);
    case ExprKind::kConcat:
      return eval_concat(expr);
    case ExprKind::kArithmetic: {
      const Value left = eval(*expr.children[0]);
      const Value right = eval(*expr.children[1]);
      guard_.at = expr.at;
      return arithmetic(guard_, expr.ops[0], left, right);
    }
  }
  return {};
}

Value Interpreter::eval_items(const Expr& expr) {
  std::vector<Value> items;
  for (const ExprPtr& child : expr.children) items.push_back(eval(*child));
  guard_.at = expr.at;
  if (expr.kind == ExprKind::kList) {
    return make_sequence(guard_, std::move(items), SequenceKind::kList);
  }
  if (expr.kind == ExprKind::kTuple) {
    return make_sequence(guard_, std::move(items), SequenceKind::kTuple);
  }
  std::vector<std::pair<Value, Value>> entries;
  for (std::size_t i = 0; i + 1 < items.size(); i += 2) {
    entries.emplace_back(std::move(items[i]), std::move(items[i + 1]));
  }
  return make_dict(guard_, entries);
}

Value Interpreter::eval_subscript(const Expr& expr) {
  const Value object = eval_object(*expr.children[0]);
  const Value key = eval(*expr.children[1]);
  guard_.at = expr.at;
  Value found = item(guard_, object, key);
  if (found.is_undefined() && !expr.name.empty()) return Undefined{&expr.name};
  return found;
}

Value Interpreter::eval_slice(const Expr& expr) {
  const Value object = eval(*expr.children[0]);
  Value parts[3];
  const Value* given[3] = {};
  for (std::size_t i = 0; i < 3; ++i) {
    if (!expr.children[i + 1]) continue;
    parts[i] = eval(*expr.children[i + 1]);
    given[i] = &parts[i];
  }
  guard_.at = expr.at;
  return slice(guard_, object, given[0], given[1], given[2]);
}

// a < b < c: each operand once, ended by the first comparison that fails.
Value Interpreter::eval_compare(const Expr& expr) {
  Value left = eval(*expr.children[0]);
  for (std::size_t i = 0; i < expr.ops.size(); ++i) {
    Value right = eval(*expr.children[i + 1]);
    guard_.at = expr.at;
    if (!compare(guard_, expr.ops[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::eval_concat(const Expr& expr) {
  Text out;
  for (const ExprPtr& child : expr.children) {
    const Value value = eval(*child);
    guard_.at = expr.at;
    const TextPtr part = to_text(guard_, value);
    guard_.check_text(out.size() + part->size());
    guard_.charge(1 + part->size() / 16 + part->runs().size());
    out.append(*part);
  }
  return make_text(guard_, std::move(out));
}

}  // namespace qwen::jinja
