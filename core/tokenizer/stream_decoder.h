// Token ids -> text, piece by piece, for a reader who must never see half a character.
#pragma once

#include <cstdint>
#include <string>

#include "core/tokenizer/tokenizer.h"

namespace qwen {

// One stream of one thread; the tokenizer must outlive it. What comes out is always valid UTF-8.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  // What became certain with this token: whole characters, and U+FFFD for bytes that no
  // continuation could make valid. The beginning of a character is held back. Throws like
  // Tokenizer::decode().
  std::string push(std::int32_t id);
  // The end: a beginning still held comes out as one U+FFFD. Ready for another stream then.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  std::string held_;  // the incomplete beginning of a character: at most three bytes
};

}  // namespace qwen
