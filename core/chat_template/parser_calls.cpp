// Calls, filters and tests: names are looked up and arguments matched with parameters here, so that
// nothing unknown is left for the rendering.
#include <algorithm>

#include "core/chat_template/parser.h"

namespace qwen::jinja {

Parser::Arguments Parser::parse_arguments() {
  Arguments arguments;
  expect_operator("(");
  std::set<std::string> seen;
  bool first = true;
  while (!at_operator(")")) {
    if (!first) {
      expect_operator(",");
      if (at_operator(")")) break;  // a comma may end the list
    }
    first = false;
    if (at_operator("*") || at_operator("**")) {
      fail_unsupported(current().at, "an argument list taken from a value");
    }
    const bool is_keyword = current().kind == TokenKind::kName &&
                            look().kind == TokenKind::kOperator && look().text == "=";
    if (is_keyword) {
      std::string name = take().text;
      take();
      if (!seen.insert(name).second) {
        fail_syntax(current().at, "argument '" + name + "' is given twice");
      }
      arguments.keyword.emplace_back(std::move(name), parse_expression());
    } else {
      if (!arguments.keyword.empty()) fail_unexpected("a named argument");
      arguments.positional.push_back(parse_expression());
    }
  }
  expect_operator(")");
  return arguments;
}

void Parser::bind(Expr& expr, const Signature& signature, Arguments arguments,
                  const std::string& name) {
  const auto n = static_cast<std::size_t>(signature.size());
  if (arguments.positional.size() > n) {
    fail_syntax(expr.at, "too many arguments for '" + name + "'");
  }
  std::vector<ExprPtr> slots = std::move(arguments.positional);
  slots.resize(n);
  for (auto& [keyword, value] : arguments.keyword) {
    const auto found = std::find(signature.names.begin(), signature.names.end(), keyword);
    if (found == signature.names.end() || keyword.empty()) {
      fail_syntax(expr.at, "'" + name + "' has no argument '" + keyword + "'");
    }
    ExprPtr& slot = slots[static_cast<std::size_t>(found - signature.names.begin())];
    if (slot) fail_syntax(expr.at, "argument '" + keyword + "' is given twice");
    slot = std::move(value);
  }
  for (int i = 0; i < signature.required; ++i) {
    if (!slots[static_cast<std::size_t>(i)]) {
      fail_syntax(expr.at, "too few arguments for '" + name + "'");
    }
  }
  for (ExprPtr& slot : slots) expr.children.push_back(std::move(slot));
}

ExprPtr Parser::parse_call(ExprPtr target) {
  const Location at = current().at;
  Arguments arguments = parse_arguments();
  const bool named = target->kind == ExprKind::kAttribute ||
                     (target->kind == ExprKind::kSubscript && !target->name.empty());
  if (named) {
    const bool is_cycle = target->name == "cycle" && target->children[0]->kind == ExprKind::kName &&
                          target->children[0]->name == "loop";
    const MethodEntry* method = find_method(target->name);
    if (!method && !is_cycle) fail_unsupported(target->at, "the method '" + target->name + "'");
    ExprPtr call = make(is_cycle ? ExprKind::kCallLoopCycle : ExprKind::kCallMethod, at);
    call->children.push_back(std::move(target->children[0]));
    call->name = std::move(target->name);
    if (is_cycle) {
      if (!arguments.keyword.empty() || arguments.positional.empty()) {
        fail_syntax(at, "loop.cycle needs positional arguments");
      }
      for (ExprPtr& argument : arguments.positional) call->children.push_back(std::move(argument));
    } else {
      call->method = method;
      bind(*call, method->signature, std::move(arguments), call->name);
    }
    return finish(std::move(call));
  }
  if (target->kind != ExprKind::kName) fail_unsupported(at, "a call of anything but a name");
  if (!find_function(target->name)) calls_.emplace_back(target->name, target->at);
  ExprPtr call = make(ExprKind::kCallFunction, target->at, std::move(arguments.positional));
  call->name = std::move(target->name);
  for (auto& [keyword, value] : arguments.keyword) {
    call->keywords.push_back(keyword);
    call->children.push_back(std::move(value));
  }
  return finish(std::move(call));
}

ExprPtr Parser::parse_filter(ExprPtr input) {
  const Location at = current().at;
  std::string name = expect_any_name("the name of a filter");
  while (skip_operator(".")) name += "." + expect_any_name("the name of a filter");
  Arguments arguments;
  if (at_operator("(")) arguments = parse_arguments();
  if (name == "map") return parse_map(std::move(input), std::move(arguments), at);
  if (name == "select" || name == "reject" || name == "selectattr" || name == "rejectattr") {
    return parse_select(std::move(input), std::move(arguments), name, at);
  }
  const Filter* filter = find_filter(name);
  if (!filter) fail_unsupported(at, "the filter '" + name + "'");
  ExprPtr expr = make(ExprKind::kFilter, at);
  expr->children.push_back(std::move(input));
  expr->filter = filter;
  bind(*expr, filter->signature, std::move(arguments), name);
  return finish(std::move(expr));
}

namespace {

// The string a literal argument holds; what it names must be known before the template runs.
std::string literal_text(const ExprPtr& expr, Location at, const char* what) {
  const bool literal = expr && expr->kind == ExprKind::kLiteral && expr->literal.text();
  if (!literal) fail_unsupported(at, std::string(what) + " that is not a literal string");
  return expr->literal.text()->bytes();
}

}  // namespace

ExprPtr Parser::parse_map(ExprPtr input, Arguments arguments, Location at) {
  if (arguments.positional.empty()) {
    ExprPtr expr = make(ExprKind::kMapAttribute, at);
    expr->children.push_back(std::move(input));
    const Signature signature = {{"attribute", "default"}, 1};
    bind(*expr, signature, std::move(arguments), "map");
    expr->name = literal_text(expr->children[1], at, "an attribute");
    expr->children.erase(expr->children.begin() + 1);
    return finish(std::move(expr));
  }
  const std::string name = literal_text(arguments.positional[0], at, "the name of a filter");
  const Filter* filter = find_filter(name);
  if (!filter) fail_unsupported(at, "the filter '" + name + "'");
  arguments.positional.erase(arguments.positional.begin());
  ExprPtr expr = make(ExprKind::kMapFilter, at);
  expr->children.push_back(std::move(input));
  expr->filter = filter;
  bind(*expr, filter->signature, std::move(arguments), name);
  return finish(std::move(expr));
}

ExprPtr Parser::parse_select(ExprPtr input, Arguments arguments, const std::string& name,
                             Location at) {
  if (!arguments.keyword.empty()) fail_unsupported(at, "a named argument of '" + name + "'");
  ExprPtr expr = make(ExprKind::kSelect, at);
  expr->children.push_back(std::move(input));
  expr->negated = name.starts_with("reject");
  std::vector<ExprPtr>& args = arguments.positional;
  if (name.ends_with("attr")) {
    if (args.empty()) fail_syntax(at, "too few arguments for '" + name + "'");
    expr->name = literal_text(args[0], at, "an attribute");
    if (expr->name.empty()) fail_unsupported(at, "an empty attribute");
    args.erase(args.begin());
  }
  if (!args.empty()) {
    const std::string test = literal_text(args[0], at, "the name of a test");
    args.erase(args.begin());
    expr->test = known_test(test, args.size(), at);
    for (ExprPtr& arg : args) expr->children.push_back(std::move(arg));
  }
  return finish(std::move(expr));
}

const Test* Parser::known_test(const std::string& name, std::size_t n_args, Location at) {
  const Test* test = find_test(name);
  if (!test) fail_unsupported(at, "the test '" + name + "'");
  if (n_args != static_cast<std::size_t>(test->n_args)) {
    fail_syntax(at, "the test '" + name + "' takes " + std::to_string(test->n_args) +
                        " arguments, not " + std::to_string(n_args));
  }
  return test;
}

ExprPtr Parser::parse_test(ExprPtr input) {
  take();  // is
  const bool negated = skip_name("not");
  const Location at = current().at;
  std::string name = expect_any_name("the name of a test");
  while (skip_operator(".")) name += "." + expect_any_name("the name of a test");
  Arguments arguments;
  const TokenKind kind = current().kind;
  const bool has_operand = kind == TokenKind::kName || kind == TokenKind::kString ||
                           kind == TokenKind::kInteger || kind == TokenKind::kFloat ||
                           at_operator("[") || at_operator("{");
  if (at_operator("(")) {
    arguments = parse_arguments();
  } else if (has_operand && !at_name("else") && !at_name("or") && !at_name("and")) {
    if (at_name("is")) fail_syntax(current().at, "tests cannot be chained with is");
    arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  if (!arguments.keyword.empty()) fail_unsupported(at, "a named argument of a test");
  const Test* test = known_test(name, arguments.positional.size(), at);
  ExprPtr expr = make(ExprKind::kTest, at);
  expr->test = test;
  expr->children.push_back(std::move(input));
  for (ExprPtr& arg : arguments.positional) expr->children.push_back(std::move(arg));
  expr = finish(std::move(expr));
  if (!negated) return expr;
  ExprPtr inverse = make(ExprKind::kNot, at);
  inverse->children.push_back(std::move(expr));
  return finish(std::move(inverse));
}

}  // namespace qwen::jinja
