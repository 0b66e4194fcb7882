// What a tokenizer is made of, as the model file gives it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qwen {

// The numbers are GGUF's (tokenizer.ggml.token_type).
enum class TokenType : std::int32_t {
  kNormal = 1,       // spelled in the byte alphabet; all others are spelled as they are
  kUnknown = 2,      // stands for what a vocabulary cannot spell; Qwen's have none
  kControl = 3,      // <|im_end|> and its like
  kUserDefined = 4,  // added to the vocabulary, may stand in plain text: <tool_call>
  kUnused = 5,       // padding up to the rows of the embedding
  kByte = 6,         // SentencePiece only: refused
};

// Views into the model file, which must outlive the tokenizer.
struct Vocabulary {
  std::vector<std::string_view> tokens;  // id = index
  std::vector<std::int32_t> types;       // a TokenType per token
  std::vector<std::string_view> merges;  // "left right", rank = index
};

namespace vocabulary_keys {
inline constexpr const char* kTokens = "tokenizer.ggml.tokens";
inline constexpr const char* kTypes = "tokenizer.ggml.token_type";
inline constexpr const char* kMerges = "tokenizer.ggml.merges";
}  // namespace vocabulary_keys

// Throws the Error of a model file whose vocabulary cannot be used. `key` is one of
// vocabulary_keys.
[[noreturn]] void refuse_vocabulary(const char* key, const char* code, std::string message);

// `text` in double quotes, shortened and with unprintable bytes as \xNN: file content in a message.
std::string quoted(std::string_view text);

}  // namespace qwen
