// Text <-> token ids of Qwen models: special tokens, NFC, pre-split, byte-level BPE.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/bpe.h"
#include "core/tokenizer/pretokenizer.h"
#include "core/tokenizer/special_tokens.h"
#include "core/tokenizer/token_table.h"
#include "core/tokenizer/vocabulary.h"

namespace qwen {

// Which tokens written in the text count as such. What does not count is ordinary text.
enum class Specials {
  kNone,         // none: messages of a chat, whose content must never act as markup
  kUserDefined,  // <tool_call> and its like, as Qwen's own tokenizer reads plain text
  kAll,          // control tokens too: the text of a chat template
};

// Immutable after construction: threads may share it.
class Tokenizer {
 public:
  // Throws Error (kModel; key and index of what is wrong) on a vocabulary that cannot be used.
  // What the views of `vocabulary` point to must outlive the tokenizer.
  explicit Tokenizer(Vocabulary vocabulary);

  // The ids of `text`; no BOS, Qwen has none. Throws Error (kUsage, "invalid_utf8") naming the byte
  // offset when `text` is not UTF-8. Time n log n at worst, besides that of find_special(); memory
  // about 25 bytes per byte of text at worst (one long run of letters), the ids included.
  std::vector<std::int32_t> encode(std::string_view text, Specials specials) const;
  // The same, appended to `out`.
  void encode(std::string_view text, Specials specials, std::vector<std::int32_t>& out) const;

  // The first token at or after `from` that counts as such, the longest of those that begin there.
  // Time linear in the text, see SpecialTokens.
  std::optional<SpecialMatch> find_special(std::string_view text, std::size_t from,
                                           Specials specials) const;

  // The exact bytes, which need not be valid UTF-8 (StreamDecoder cuts at characters). Special
  // tokens come out as their own text. Throws Error (kUsage, "token_id") for an id outside 0 ..
  // size() - 1.
  std::string decode(std::span<const std::int32_t> ids) const;
  // The exact bytes of one token; valid as long as the tokenizer. Throws like decode().
  std::string_view piece(std::int32_t id) const;

  // The id of a token as the file spells it: control and user-defined tokens as they are
  // ("<|im_end|>"), normal ones in the byte alphabet.
  std::optional<std::int32_t> find(std::string_view spelling) const;

  std::int32_t size() const { return tokens_.size(); }
  TokenType type(std::int32_t id) const;  // throws like decode()

 private:
  struct Scratch;
  void encode_stretch(std::string_view text, Scratch& scratch,
                      std::vector<std::int32_t>& out) const;
  void require_id(std::int32_t id) const;

  TokenTable tokens_;
  Bpe bpe_;
  Pretokenizer pretokenizer_;
  SpecialTokens specials_;
};

}  // namespace qwen
