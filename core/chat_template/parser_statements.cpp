// Tags.
#include <algorithm>
#include <array>

#include "core/chat_template/parser.h"

namespace qwen::jinja {

namespace {

// Tags of Jinja, of its extensions and of Hugging Face's that are not built in.
constexpr std::array<std::string_view, 15> kOtherTags = {
    "autoescape", "block",  "call",    "debug",     "do",    "extends", "filter", "from",
    "generation", "import", "include", "pluralize", "print", "trans",   "with"};

// Restores a value at the end of a scope.
template <class T>
class Restore {
 public:
  explicit Restore(T& variable) : variable_(variable), value_(variable) {}
  ~Restore() { variable_ = value_; }
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;

 private:
  T& variable_;
  T value_;
};

bool is_constant(std::string_view name) {
  return name == "true" || name == "false" || name == "none" || name == "True" || name == "False" ||
         name == "None";
}

}  // namespace

Block Parser::parse_template() {
  Block block = parse_body({}, current().at);
  for (const auto& [name, at] : calls_) {
    if (!macros_.contains(name)) {
      fail_unsupported(at, "the function '" + name + "'");
    }
  }
  return block;
}

// Up to one of the tags in `ends`, whose name becomes the current token; without any, to the end.
Block Parser::parse_body(std::initializer_list<std::string_view> ends, Location opened) {
  const Nest nest(*this);
  Block block;
  for (;;) {
    const Token& token = take();
    if (token.kind == TokenKind::kEnd) {
      if (ends.size() == 0) return block;
      fail_syntax(opened, "this tag is not closed: expected '" + std::string(*ends.begin()) +
                              "' before the end of the template");
    }
    if (token.kind == TokenKind::kData) {
      block.push_back(Stmt{.kind = StmtKind::kText,
                           .at = token.at,
                           .text = std::make_shared<const Text>(token.text, true)});
    } else if (token.kind == TokenKind::kVariableBegin) {
      Stmt print{.kind = StmtKind::kPrint, .at = token.at};
      print.exprs.push_back(parse_tuple(true));
      expect(TokenKind::kVariableEnd, "the end of the expression");
      block.push_back(std::move(print));
    } else {  // the lexer leaves nothing else between tags
      if (current().kind == TokenKind::kName &&
          std::find(ends.begin(), ends.end(), current().text) != ends.end()) {
        return block;
      }
      block.push_back(parse_statement());
      expect(TokenKind::kBlockEnd, "the end of the tag");
    }
  }
}

// The body of a tag whose own end comes next.
Block Parser::parse_block(std::initializer_list<std::string_view> ends, const char* tag,
                          Location opened) {
  skip_operator(":");
  expect(TokenKind::kBlockEnd, (std::string("the end of the tag '") + tag + "'").c_str());
  return parse_body(ends, opened);
}

Stmt Parser::parse_statement() {
  const Location at = current().at;
  const std::string tag = expect_any_name("the name of a tag");
  if (tag == "if") return parse_if(at);
  if (tag == "for") return parse_for(at);
  if (tag == "set") return parse_set(at);
  if (tag == "macro") return parse_macro(at);
  if (tag == "break" || tag == "continue") {
    if (loops_ == 0) fail_syntax(at, "'" + tag + "' outside of a loop");
    return Stmt{.kind = tag == "break" ? StmtKind::kBreak : StmtKind::kContinue, .at = at};
  }
  if (std::find(kOtherTags.begin(), kOtherTags.end(), tag) != kOtherTags.end()) {
    fail_unsupported(at, "the tag '" + tag + "'");
  }
  fail_syntax(at, "unexpected tag '" + tag + "'");
}

Stmt Parser::parse_if(Location at) {
  Stmt stmt{.kind = StmtKind::kIf, .at = at};
  for (;;) {
    stmt.exprs.push_back(parse_tuple(false));
    stmt.blocks.push_back(parse_block({"endif", "elif", "else"}, "if", at));
    if (!skip_name("elif")) break;
  }
  if (take().text == "else") {
    stmt.blocks.push_back(parse_block({"endif"}, "else", at));
    take();
  }
  return stmt;
}

Stmt Parser::parse_for(Location at) {
  Stmt stmt{.kind = StmtKind::kFor, .at = at};
  stmt.target = parse_target(false);
  expect_name("in");
  stmt.exprs.push_back(parse_tuple(false, false, true));
  stmt.exprs.push_back(skip_name("if") ? parse_expression() : nullptr);
  if (at_name("recursive")) fail_unsupported(current().at, "a recursive loop");
  const Restore top(top_level_);
  top_level_ = false;
  ++loops_;
  stmt.blocks.push_back(parse_block({"endfor", "else"}, "for", at));
  --loops_;
  if (take().text == "else") {
    stmt.blocks.push_back(parse_block({"endfor"}, "else", at));
    take();
  }
  return stmt;
}

Stmt Parser::parse_set(Location at) {
  Stmt stmt{.kind = StmtKind::kSet, .at = at};
  stmt.target = parse_target(true);
  if (skip_operator("=")) {
    stmt.exprs.push_back(parse_tuple(true));
    return stmt;
  }
  if (at_operator("|")) fail_unsupported(current().at, "a filter on a block set");
  if (stmt.target.unpacks) fail_syntax(at, "a block cannot be unpacked");
  stmt.kind = StmtKind::kSetBlock;
  const Restore top(top_level_);
  const Restore loops(loops_);
  top_level_ = false;
  loops_ = 0;  // a break would leave the block half done
  stmt.blocks.push_back(parse_block({"endset"}, "set", at));
  take();
  return stmt;
}

Stmt Parser::parse_macro(Location at) {
  // Elsewhere a macro would have to remember the variables around it.
  if (!top_level_) fail_unsupported(at, "a macro inside of another block");
  Stmt stmt{.kind = StmtKind::kMacro, .at = at};
  stmt.name = expect_any_name("the name of the macro");
  std::set<std::string> seen;
  expect_operator("(");
  while (!at_operator(")")) {
    if (!stmt.names.empty()) expect_operator(",");
    const Location parameter = current().at;
    std::string name = expect_any_name("the name of a parameter");
    if (name == "caller" || is_constant(name)) fail_unsupported(parameter, "a parameter " + name);
    if (!seen.insert(name).second) {
      fail_syntax(parameter, "parameter '" + name + "' is given twice");
    }
    stmt.names.push_back(std::move(name));
    if (skip_operator("=")) {
      stmt.exprs.push_back(parse_expression());
    } else if (!stmt.exprs.empty()) {
      fail_syntax(parameter, "a parameter without a default after one with a default");
    }
  }
  take();
  macros_.insert(stmt.name);
  const Restore top(top_level_);
  const Restore loops(loops_);
  const Restore macro(in_macro_);
  in_macro_ = true;
  top_level_ = false;
  loops_ = 0;
  stmt.blocks.push_back(parse_block({"endmacro"}, "macro", at));
  take();
  return stmt;
}

Target Parser::parse_target(bool with_namespace) {
  Target target;
  bool parenthesized = skip_operator("(");
  for (;;) {
    const Location at = current().at;
    if (!target.names.empty() && current().kind != TokenKind::kName) break;  // a comma may end it
    std::string name = expect_any_name("a name to assign to");
    if (is_constant(name)) fail_syntax(at, "cannot assign to '" + name + "'");
    if (name == "loop") fail_unsupported(at, "an assignment to 'loop'");
    target.names.push_back(std::move(name));
    if (with_namespace && !target.unpacks && skip_operator(".")) {
      target.attribute = expect_any_name("the name of an attribute");
      return target;
    }
    if (!at_operator(",")) break;
    take();
    target.unpacks = true;
    if (at_name("in")) break;
  }
  if (parenthesized) expect_operator(")");
  return target;
}

Block parse(std::string source) { return Parser(tokenize(std::move(source))).parse_template(); }

}  // namespace qwen::jinja
