// Splits a template into literal text and the tokens inside its tags, with Jinja's treatment of
// white space: trim_blocks and lstrip_blocks are on, as Hugging Face renders chat templates.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/chat_template/guard.h"

namespace qwen::jinja {

enum class TokenKind {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,  // text: decoded
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  std::string text;
  Location at;
};

// The last token is kEnd. Throws Error template_syntax or template_unsupported. The source is
// UTF-8.
std::vector<Token> tokenize(std::string source);

// The characters of a literal without its quotes (string_literal.cpp).
std::string decode_string_literal(std::string_view body, Location at);

[[noreturn]] void fail_syntax(Location at, const std::string& message);
[[noreturn]] void fail_unsupported(Location at, const std::string& message);

}  // namespace qwen::jinja
