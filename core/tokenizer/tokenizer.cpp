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
    const bool is_control = tokens_.type(id) == TokenType::kControl;
    if (is_control || tokens_.type(id) == TokenType::kUserDefined) {
      specials_.add(tokens_.bytes(id), id, is_control);
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
  while (const auto match = find_special(text, done, specials)) {
    encode_stretch(text.substr(done, match->offset - done), scratch, out);
    out.push_back(match->id);
    done = match->offset + match->length;
  }
  encode_stretch(text.substr(done), scratch, out);
}

std::optional<SpecialMatch> Tokenizer::find_special(std::string_view text, std::size_t from,
                                                    Specials specials) const {
  if (specials == Specials::kNone) return std::nullopt;
  return specials_.find(text, from, specials == Specials::kAll);
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
