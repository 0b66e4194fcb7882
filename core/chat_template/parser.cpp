#include "core/chat_template/parser.h"

#include <algorithm>
#include <charconv>

namespace qwen::jinja {

namespace {

template <class... Children>
std::vector<ExprPtr> list(Children... children) {
  std::vector<ExprPtr> all;
  (all.push_back(std::move(children)), ...);
  return all;
}

Value integer(const Token& token) {
  Int value = 0;
  for (const char c : token.text) {
    if (value > (Int{1} << 120)) fail_unsupported(token.at, "an integer of more than 127 bits");
    value = value * 10 + (c - '0');
  }
  return value;
}

Value floating(const Token& token) {
  double value = 0;
  const char* end = token.text.data() + token.text.size();
  if (std::from_chars(token.text.data(), end, value).ec != std::errc{}) {
    fail_unsupported(token.at, "a number out of the range of double");
  }
  return value;
}

}  // namespace

Parser::Nest::Nest(Parser& parser) : parser_(parser) {
  if (parser.nesting_ >= kMaxNesting) {
    fail_at(parser.current().at, Exit::kModel, "template_too_deep",
            "nested more than " + std::to_string(kMaxNesting) + " deep", "give another template");
  }
  ++parser.nesting_;
}

const Token& Parser::take() {
  const Token& token = tokens_[next_];
  if (token.kind != TokenKind::kEnd) ++next_;
  return token;
}

bool Parser::at_operator(std::string_view symbol) const {
  return current().kind == TokenKind::kOperator && current().text == symbol;
}

bool Parser::at_name(std::string_view name) const {
  return current().kind == TokenKind::kName && current().text == name;
}

bool Parser::skip_operator(std::string_view symbol) {
  const bool found = at_operator(symbol);
  if (found) take();
  return found;
}

bool Parser::skip_name(std::string_view name) {
  const bool found = at_name(name);
  if (found) take();
  return found;
}

void Parser::expect_operator(std::string_view symbol) {
  if (!skip_operator(symbol)) fail_unexpected(("'" + std::string(symbol) + "'").c_str());
}

void Parser::expect_name(std::string_view name) {
  if (!skip_name(name)) fail_unexpected(("'" + std::string(name) + "'").c_str());
}

std::string Parser::expect_any_name(const char* what) {
  if (current().kind != TokenKind::kName) fail_unexpected(what);
  return take().text;
}

void Parser::expect(TokenKind kind, const char* what) {
  if (current().kind != kind) fail_unexpected(what);
  take();
}

void Parser::fail_unexpected(const char* wanted) const {
  std::string found;
  switch (current().kind) {
    case TokenKind::kEnd:
      found = "end of the template";
      break;
    case TokenKind::kVariableEnd:
      found = "end of the expression";
      break;
    case TokenKind::kBlockEnd:
      found = "end of the tag";
      break;
    case TokenKind::kString:
      found = "string";
      break;
    default:
      found = "'" + current().text + "'";
  }
  fail_syntax(current().at, std::string("expected ") + wanted + ", found " + found);
}

ExprPtr Parser::finish(ExprPtr expr) const {
  expr->depth = 1;
  for (const ExprPtr& child : expr->children) {
    if (child) expr->depth = std::max(expr->depth, child->depth + 1);
  }
  if (expr->depth > kMaxExpressionDepth) {
    fail_at(expr->at, Exit::kModel, "template_too_deep", "an expression of too many parts",
            "give another template");
  }
  return expr;
}

ExprPtr Parser::make(ExprKind kind, Location at, std::vector<ExprPtr> children) {
  auto expr = std::make_unique<Expr>(Expr{.kind = kind, .at = at});
  expr->children = std::move(children);
  return finish(std::move(expr));
}

bool Parser::at_tuple_end(bool ends_at_recursive) const {
  const TokenKind kind = current().kind;
  return kind == TokenKind::kVariableEnd || kind == TokenKind::kBlockEnd || at_operator(")") ||
         (ends_at_recursive && at_name("recursive"));
}

ExprPtr Parser::parse_tuple(bool with_condition, bool in_parentheses, bool ends_at_recursive) {
  const Location at = current().at;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  for (;;) {
    if (!items.empty()) expect_operator(",");
    if (at_tuple_end(ends_at_recursive)) break;
    items.push_back(with_condition ? parse_expression() : parse_or());
    if (!at_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!items.empty()) return std::move(items[0]);
    if (!in_parentheses) fail_unexpected("an expression");
  }
  return make(ExprKind::kTuple, at, std::move(items));
}

ExprPtr Parser::parse_condition() {
  const Nest nest(*this);
  ExprPtr expr = parse_or();
  while (at_name("if")) {
    const Location at = take().at;
    ExprPtr condition = parse_or();
    ExprPtr otherwise = skip_name("else") ? parse_condition() : nullptr;
    expr = make(ExprKind::kCondition, at,
                list(std::move(expr), std::move(condition), std::move(otherwise)));
  }
  return expr;
}

ExprPtr Parser::parse_or() {
  ExprPtr left = parse_and();
  while (at_name("or")) {
    const Location at = take().at;
    left = make(ExprKind::kOr, at, list(std::move(left), parse_and()));
  }
  return left;
}

ExprPtr Parser::parse_and() {
  ExprPtr left = parse_not();
  while (at_name("and")) {
    const Location at = take().at;
    left = make(ExprKind::kAnd, at, list(std::move(left), parse_not()));
  }
  return left;
}

ExprPtr Parser::parse_not() {
  if (!at_name("not")) return parse_compare();
  const Nest nest(*this);
  const Location at = take().at;
  return make(ExprKind::kNot, at, list(parse_not()));
}

ExprPtr Parser::parse_compare() {
  constexpr std::pair<std::string_view, Op> kSymbols[] = {
      {"==", Op::kEqual},     {"!=", Op::kNotEqual}, {"<", Op::kLess},
      {"<=", Op::kLessEqual}, {">", Op::kGreater},   {">=", Op::kGreaterEqual}};
  std::vector<ExprPtr> operands = list(parse_sum());
  std::vector<Op> ops;
  Location at = current().at;
  for (;;) {
    const Location here = current().at;
    const auto symbol = std::find_if(std::begin(kSymbols), std::end(kSymbols),
                                     [&](const auto& s) { return at_operator(s.first); });
    if (symbol != std::end(kSymbols)) {
      take();
      ops.push_back(symbol->second);
    } else if (skip_name("in")) {
      ops.push_back(Op::kIn);
    } else if (at_name("not") && look().kind == TokenKind::kName && look().text == "in") {
      take();
      take();
      ops.push_back(Op::kNotIn);
    } else {
      break;
    }
    if (ops.size() == 1) at = here;
    operands.push_back(parse_sum());
  }
  if (ops.empty()) return std::move(operands[0]);
  ExprPtr expr = make(ExprKind::kCompare, at, std::move(operands));
  expr->ops = std::move(ops);
  return expr;
}

ExprPtr Parser::parse_sum() {
  ExprPtr left = parse_concat();
  while (at_operator("+") || at_operator("-")) {
    const Token& token = take();
    left = make(ExprKind::kArithmetic, token.at, list(std::move(left), parse_concat()));
    left->ops = {token.text == "+" ? Op::kAdd : Op::kSubtract};
  }
  return left;
}

ExprPtr Parser::parse_concat() {
  const Location at = current().at;
  std::vector<ExprPtr> parts = list(parse_product());
  while (skip_operator("~")) parts.push_back(parse_product());
  if (parts.size() == 1) return std::move(parts[0]);
  return make(ExprKind::kConcat, at, std::move(parts));
}

ExprPtr Parser::parse_product() {
  ExprPtr left = parse_power();
  while (at_operator("*") || at_operator("/") || at_operator("//") || at_operator("%")) {
    const Token& token = take();
    left = make(ExprKind::kArithmetic, token.at, list(std::move(left), parse_power()));
    left->ops = {token.text == "*"    ? Op::kMultiply
                 : token.text == "/"  ? Op::kDivide
                 : token.text == "//" ? Op::kFloorDivide
                                      : Op::kModulo};
  }
  return left;
}

ExprPtr Parser::parse_power() {
  ExprPtr left = parse_unary();
  while (at_operator("**")) {
    const Location at = take().at;
    left = make(ExprKind::kArithmetic, at, list(std::move(left), parse_unary()));
    left->ops = {Op::kPower};
  }
  return left;
}

ExprPtr Parser::parse_unary(bool with_filters) {
  const Nest nest(*this);
  ExprPtr expr;
  if (at_operator("-") || at_operator("+")) {
    const Token& token = take();
    expr = make(token.text == "-" ? ExprKind::kNegate : ExprKind::kPositive, token.at,
                list(parse_unary(false)));
  } else {
    expr = parse_primary();
  }
  expr = parse_postfix(std::move(expr));
  return with_filters ? parse_filters_and_tests(std::move(expr)) : std::move(expr);
}

ExprPtr Parser::parse_primary() {
  const Token& token = current();
  ExprPtr literal = make(ExprKind::kLiteral, token.at);
  if (token.kind == TokenKind::kName) {
    take();
    if (token.text == "true" || token.text == "True") {
      literal->literal = true;
    } else if (token.text == "false" || token.text == "False") {
      literal->literal = false;
    } else if (token.text == "none" || token.text == "None") {
      literal->literal = None{};
    } else {
      const bool implicit =
          token.text == "varargs" || token.text == "kwargs" || token.text == "caller";
      if (in_macro_ && implicit) fail_unsupported(token.at, "'" + token.text + "' in a macro");
      literal->kind = ExprKind::kName;
      literal->name = token.text;
    }
    return literal;
  }
  if (token.kind == TokenKind::kString) {
    std::string joined;
    while (current().kind == TokenKind::kString) joined += take().text;
    literal->literal = TextPtr(std::make_shared<const Text>(std::move(joined), true));
    return literal;
  }
  if (token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat) {
    literal->literal = token.kind == TokenKind::kInteger ? integer(token) : floating(token);
    take();
    return literal;
  }
  if (skip_operator("(")) {
    ExprPtr inner = parse_tuple(true, true);
    expect_operator(")");
    return inner;
  }
  if (at_operator("[")) return parse_list();
  if (at_operator("{")) return parse_dict();
  fail_unexpected("an expression");
}

ExprPtr Parser::parse_list() {
  const Location at = take().at;
  std::vector<ExprPtr> items;
  while (!at_operator("]")) {
    if (!items.empty()) expect_operator(",");
    if (at_operator("]")) break;
    items.push_back(parse_expression());
  }
  take();
  return make(ExprKind::kList, at, std::move(items));
}

ExprPtr Parser::parse_dict() {
  const Location at = take().at;
  std::vector<ExprPtr> items;
  while (!at_operator("}")) {
    if (!items.empty()) expect_operator(",");
    if (at_operator("}")) break;
    items.push_back(parse_expression());
    expect_operator(":");
    items.push_back(parse_expression());
  }
  take();
  return make(ExprKind::kDict, at, std::move(items));
}

ExprPtr Parser::parse_postfix(ExprPtr expr) {
  for (;;) {
    if (at_operator(".") || at_operator("[")) {
      expr = parse_subscript(std::move(expr));
    } else if (at_operator("(")) {
      expr = parse_call(std::move(expr));
    } else {
      return expr;
    }
  }
}

ExprPtr Parser::parse_filters_and_tests(ExprPtr expr) {
  for (;;) {
    if (skip_operator("|")) {
      expr = parse_filter(std::move(expr));
    } else if (at_name("is")) {
      expr = parse_test(std::move(expr));
    } else if (at_operator("(")) {
      expr = parse_call(std::move(expr));
    } else {
      return expr;
    }
  }
}

ExprPtr Parser::parse_subscript(ExprPtr object) {
  const Token& token = take();
  if (token.text == "[") return parse_bracket(std::move(object), token.at);
  if (current().kind == TokenKind::kName) {
    ExprPtr expr = make(ExprKind::kAttribute, token.at, list(std::move(object)));
    expr->name = take().text;
    return expr;
  }
  if (current().kind != TokenKind::kInteger) fail_unexpected("a name or a number");
  ExprPtr key = make(ExprKind::kLiteral, current().at);
  key->literal = integer(take());
  return make(ExprKind::kSubscript, token.at, list(std::move(object), std::move(key)));
}

ExprPtr Parser::parse_bracket(ExprPtr object, Location at) {
  if (at_operator("]")) fail_unexpected("an expression");
  ExprPtr first = at_operator(":") ? nullptr : parse_expression();
  if (!at_operator(":")) {
    if (at_operator(",")) fail_unsupported(current().at, "a subscript of several parts");
    expect_operator("]");
    const Text* name = first->kind == ExprKind::kLiteral ? first->literal.text() : nullptr;
    ExprPtr expr = make(ExprKind::kSubscript, at, list(std::move(object), std::move(first)));
    if (name) expr->name = name->bytes();
    return expr;
  }
  std::vector<ExprPtr> parts = list(std::move(object), std::move(first));
  while (parts.size() < 4 && skip_operator(":")) {
    const bool given = !at_operator(":") && !at_operator("]") && !at_operator(",");
    parts.push_back(given ? parse_expression() : nullptr);
  }
  if (at_operator(",")) fail_unsupported(current().at, "a subscript of several parts");
  expect_operator("]");
  parts.resize(4);
  return make(ExprKind::kSlice, at, std::move(parts));
}

}  // namespace qwen::jinja
