// Recursive descent over the tokens, rule by rule as in Jinja's own parser, so that precedence and
// every oddity agree. What the interpreter cannot run is refused here, by name and place.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/chat_template/ast.h"
#include "core/chat_template/lexer.h"

namespace qwen::jinja {

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  Block parse_template();

 private:
  // Counts nesting; every rule that can contain itself holds one.
  class Nest {
   public:
    explicit Nest(Parser& parser);
    ~Nest() { --parser_.nesting_; }
    Nest(const Nest&) = delete;
    Nest& operator=(const Nest&) = delete;

   private:
    Parser& parser_;
  };
  struct Arguments {
    std::vector<ExprPtr> positional;
    std::vector<std::pair<std::string, ExprPtr>> keyword;
  };

  // Tokens
  const Token& current() const { return tokens_[next_]; }
  const Token& look() const { return tokens_[std::min(next_ + 1, tokens_.size() - 1)]; }
  const Token& take();
  bool at_operator(std::string_view symbol) const;
  bool at_name(std::string_view name) const;
  bool skip_operator(std::string_view symbol);
  bool skip_name(std::string_view name);
  void expect_operator(std::string_view symbol);
  void expect_name(std::string_view name);
  std::string expect_any_name(const char* what);
  void expect(TokenKind kind, const char* what);
  [[noreturn]] void fail_unexpected(const char* wanted) const;

  // Statements (parser_statements.cpp)
  Block parse_body(std::initializer_list<std::string_view> ends, Location opened);
  Block parse_block(std::initializer_list<std::string_view> ends, const char* tag, Location opened);
  Stmt parse_statement();
  Stmt parse_if(Location at);
  Stmt parse_for(Location at);
  Stmt parse_set(Location at);
  Stmt parse_macro(Location at);
  Target parse_target(bool with_namespace);

  // Expressions (parser.cpp)
  ExprPtr parse_tuple(bool with_condition, bool in_parentheses = false,
                      bool ends_at_recursive = false);
  ExprPtr parse_expression() { return parse_condition(); }
  ExprPtr parse_condition();
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filters = true);
  ExprPtr parse_primary();
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr expr);
  ExprPtr parse_filters_and_tests(ExprPtr expr);
  ExprPtr parse_subscript(ExprPtr object);
  ExprPtr parse_bracket(ExprPtr object, Location at);
  bool at_tuple_end(bool ends_at_recursive) const;

  // Calls, filters, tests (parser_calls.cpp)
  Arguments parse_arguments();
  ExprPtr parse_call(ExprPtr target);
  ExprPtr parse_filter(ExprPtr input);
  ExprPtr parse_map(ExprPtr input, Arguments arguments, Location at);
  ExprPtr parse_select(ExprPtr input, Arguments arguments, const std::string& name, Location at);
  ExprPtr parse_test(ExprPtr input);
  const Test* known_test(const std::string& name, std::size_t n_args, Location at);
  // Appends one child per parameter of the signature.
  void bind(Expr& expr, const Signature& signature, Arguments arguments, const std::string& name);

  ExprPtr make(ExprKind kind, Location at, std::vector<ExprPtr> children = {});
  // Sets the depth from the children, which are complete now.
  ExprPtr finish(ExprPtr expr) const;

  std::vector<Token> tokens_;
  std::size_t next_ = 0;
  int nesting_ = 0;
  int loops_ = 0;  // that a break here would leave
  bool in_macro_ = false;
  bool top_level_ = true;  // not inside for, macro or a block set: a macro may be defined
  std::set<std::string> macros_;
  std::vector<std::pair<std::string, Location>> calls_;  // of names that must turn out to be macros
};

}  // namespace qwen::jinja
