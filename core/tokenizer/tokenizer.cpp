#include "core/tokenizer/tokenizer.h"

#include "core/error.h"
#include "core/tokenizer/normalizer.h"
#include "core/tokenizer/utf8.h"

namespace qwen {

// What one call of encode() works with.
struct Tokenizer::Scratch {
  PieceSplitter splitter;
  BpeScratch bpe = {};
  std::string normalized = {};
};

Tokenizer::Tokenizer(Vocabulary vocabulary)
    : tokens_(std::move(vocabulary.tokens), std::move(vocabulary.types)),
      bpe_(tokens_, vocabulary.merges) {
  for (std::int32_t id = 0; id < size(); ++id) {
    const TokenType type = tokens_.type(id);
    if (type == TokenType::kUserDefined) user_defined_.add(tokens_.spelling(id), id);
    if (type == TokenType::kUserDefined || type == TokenType::kControl) {
      all_specials_.add(tokens_.spelling(id), id);
    }
  }
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, Specials specials) const {
  std::vector<std::int32_t> ids;
  encode(text, specials, ids);
  return ids;
}

void Tokenizer::encode(std::string_view text, Specials specials,
                       std::vector<std::int32_t>& out) const {
  const std::size_t invalid = find_invalid_utf8(text);
  if (invalid != text.npos) {
    throw Error({.exit = Exit::kUsage,
                 .code = "invalid_utf8",
                 .message = "the text is not valid UTF-8 at byte " + std::to_string(invalid) +
                            " of " + std::to_string(text.size()),
                 .hint = "convert it to UTF-8"});
  }
  Scratch scratch = {.splitter = PieceSplitter(pretokenizer_)};
  std::size_t done = 0;
  if (specials != Specials::kNone) {
    const SpecialTokens& counted = specials == Specials::kAll ? all_specials_ : user_defined_;
    while (const auto match = counted.find(text, done)) {
      encode_stretch(text.substr(done, match->offset - done), scratch, out);
      out.push_back(match->id);
      done = match->offset + match->length;
    }
  }
  encode_stretch(text.substr(done), scratch, out);
}

void Tokenizer::encode_stretch(std::string_view text, Scratch& scratch,
                               std::vector<std::int32_t>& out) const {
  scratch.splitter.start(normalize_nfc(text, scratch.normalized));
  for (std::string_view piece; scratch.splitter.next(piece);) {
    bpe_.encode(piece, scratch.bpe, out);
  }
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  std::string text;
  for (const std::int32_t id : ids) text += piece(id);
  return text;
}

std::string_view Tokenizer::piece(std::int32_t id) const {
  require_id(id);
  return tokens_.bytes(id);
}

std::optional<std::int32_t> Tokenizer::find(std::string_view spelling) const {
  const std::int32_t id = tokens_.find(spelling);
  return id == TokenTable::kNone ? std::nullopt : std::optional(id);
}

TokenType Tokenizer::type(std::int32_t id) const {
  require_id(id);
  return tokens_.type(id);
}

void Tokenizer::require_id(std::int32_t id) const {
  if (id >= 0 && id < size()) return;
  throw Error({.exit = Exit::kUsage,
               .code = "token_id",
               .message = "token id " + std::to_string(id) + ": expected 0 to " +
                          std::to_string(size() - 1)});
}

}  // namespace qwen
