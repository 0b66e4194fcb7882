#include "core/chat_template/interpreter.h"

#include <utility>

#include "core/chat_template/format.h"
#include "core/chat_template/interpreter_scope.h"

namespace qwen::jinja {

Interpreter::Interpreter(const Variables& variables, Limits limits,
                         std::function<std::int64_t()> clock)
    : variables_(variables), guard_(limits), clock_(std::move(clock)), scopes_(1) {}

Text Interpreter::run(const Block& block) { return capture(block); }

Text Interpreter::capture(const Block& block) {
  Text text;
  Text* const outer = std::exchange(out_, &text);
  exec(block);
  out_ = outer;  // after an exception the interpreter is not used again
  return text;
}

Value Interpreter::capture_inner(const Block& block) {
  const Inner inner(*this);
  return make_text(guard_, capture(block));
}

void Interpreter::print(const Text& text) {
  guard_.check_text(out_->size() + text.size());
  guard_.charge(1 + text.size() / 16 + text.runs().size());
  out_->append(text);
}

Interpreter::Flow Interpreter::exec(const Block& block) {
  for (const Stmt& stmt : block) {
    const Flow flow = exec(stmt);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::exec(const Stmt& stmt) {
  const Enter enter(*this, stmt.at);
  switch (stmt.kind) {
    case StmtKind::kText:
      print(*stmt.text);
      break;
    case StmtKind::kPrint: {
      const Value value = eval(*stmt.exprs[0]);
      print(*to_text(guard_, value));
      break;
    }
    case StmtKind::kIf:
      return exec_if(stmt);
    case StmtKind::kFor:
      return exec_for(stmt);
    case StmtKind::kSet:
      assign(stmt.target, eval(*stmt.exprs[0]), stmt.at);
      break;
    case StmtKind::kSetBlock:
      assign(stmt.target, capture_inner(stmt.blocks[0]), stmt.at);
      break;
    case StmtKind::kMacro:
      scopes_.back()[stmt.name] = &stmt;
      break;
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::exec_if(const Stmt& stmt) {
  for (std::size_t i = 0; i < stmt.exprs.size(); ++i) {
    if (is_true(eval(*stmt.exprs[i]))) return exec(stmt.blocks[i]);
  }
  if (stmt.blocks.size() > stmt.exprs.size()) return exec(stmt.blocks.back());
  return Flow::kNext;
}

// The items for which the loop's own `if` holds. It sees the loop's variable, not `loop`.
Value Interpreter::filtered(const Stmt& stmt, const Value& items) {
  std::vector<Value> kept;
  for (const Value& item : Elements(iterate(guard_, items))) {
    const Inner inner(*this);
    assign(stmt.target, item, stmt.at);
    if (is_true(eval(*stmt.exprs[1]))) kept.push_back(item);
  }
  return make_sequence(guard_, std::move(kept), SequenceKind::kList);
}

Interpreter::Flow Interpreter::exec_for(const Stmt& stmt) {
  Value items = eval(*stmt.exprs[0]);
  guard_.at = stmt.at;
  if (stmt.exprs[1]) items = filtered(stmt, items);
  Loop loop{iterate(guard_, items), 0};
  for (; loop.index < loop.items->items.size(); ++loop.index) {
    const Inner inner(*this);
    guard_.charge(2);
    scopes_.back()["loop"] = static_cast<const Loop*>(&loop);
    assign(stmt.target, loop.items->items[loop.index], stmt.at);
    if (exec(stmt.blocks[0]) == Flow::kBreak) break;
  }
  if (loop.items->items.empty() && stmt.blocks.size() > 1) {
    const Inner inner(*this);
    return exec(stmt.blocks[1]);
  }
  return Flow::kNext;
}

void Interpreter::assign(const Target& target, Value value, Location at) {
  guard_.at = at;
  if (!target.attribute.empty()) {
    const Expr name{.kind = ExprKind::kName, .at = at, .name = target.names[0]};
    const Value object = lookup(name);
    if (!object.is<Namespace*>())
      guard_.fail("cannot assign an attribute on a non-namespace object");
    (*object.as<Namespace*>())->attributes[target.attribute] = std::move(value);
    guard_.charge(4);
    return;
  }
  if (!target.unpacks) {
    scopes_.back()[target.names[0]] = std::move(value);
    return;
  }
  const SequencePtr parts = iterate(guard_, value);
  if (parts->items.size() != target.names.size()) {
    guard_.fail(std::to_string(parts->items.size()) + " values to unpack, " +
                std::to_string(target.names.size()) + " expected");
  }
  for (std::size_t i = 0; i < target.names.size(); ++i) {
    scopes_.back()[target.names[i]] = parts->items[i];
  }
}

}  // namespace qwen::jinja
