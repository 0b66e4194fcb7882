// A parsed template. Immutable; may be run by several threads at once.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/chat_template/builtins.h"
#include "core/chat_template/guard.h"
#include "core/chat_template/operators.h"
#include "core/chat_template/value.h"

namespace qwen::jinja {

enum class ExprKind {
  kLiteral,
  kName,
  kList,
  kTuple,
  kDict,           // children: key, value, key, value, ...
  kAttribute,      // children: object
  kSubscript,      // children: object, key; `name`: the key where it is a literal string
  kSlice,          // children: object, start, stop, step; the last three may be null
  kCallMethod,     // children: object, one per parameter (or null)
  kCallLoopCycle,  // children: the arguments
  kCallFunction,   // children: arguments, then one per keyword
  kFilter,         // children: input, one per parameter (or null)
  kTest,           // children: input, arguments
  kMapFilter,      // children: sequence, one per parameter of `filter` (or null)
  kMapAttribute,   // children: sequence, default (or null); `name`: the attribute
  kSelect,         // children: sequence, arguments of `test`; `name`: the attribute, if not empty
  kNegate,
  kPositive,
  kNot,
  kAnd,
  kOr,
  kCondition,  // children: then, condition, else (or null)
  kCompare,    // children: n + 1 operands of n `ops`
  kConcat,
  kArithmetic,  // ops[0]
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  ExprKind kind;
  Location at;
  int depth = 1;
  std::string name = {};
  Value literal = {};
  std::vector<ExprPtr> children = {};
  std::vector<std::string> keywords = {};
  std::vector<Op> ops = {};
  const Filter* filter = nullptr;
  const Test* test = nullptr;  // null in kSelect: truth
  const MethodEntry* method = nullptr;
  bool negated = false;  // kSelect: reject
};

enum class StmtKind { kText, kPrint, kIf, kFor, kSet, kSetBlock, kMacro, kBreak, kContinue };

using Block = std::vector<Stmt>;

// What `set` and `for` assign to: a name, several names, or an attribute of a namespace.
struct Target {
  std::vector<std::string> names = {};
  bool unpacks = false;
  std::string attribute = {};
};

struct Stmt {
  StmtKind kind;
  Location at;
  TextPtr text = nullptr;               // kText
  Target target = {};                   // kFor, kSet, kSetBlock
  std::string name = {};                // kMacro
  std::vector<std::string> names = {};  // kMacro: parameters
  // kPrint, kSet: the value; kIf: the conditions; kFor: the sequence and the filter (or null);
  // kMacro: the defaults of the last parameters.
  std::vector<ExprPtr> exprs = {};
  // kIf: one per condition, and one more for else; kFor: body, and else; others: body.
  std::vector<Block> blocks = {};
};

// Throws Error template_syntax, template_unsupported or template_too_deep, with line and column.
Block parse(std::string source);

}  // namespace qwen::jinja
