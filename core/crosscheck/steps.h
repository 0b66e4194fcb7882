// The steps of a run: all texts advance together, in chunks; then a token per text and step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/session.h"

namespace qwen::crosscheck {

using Progress =
    std::function<void(std::span<const TokenInput> step, std::int64_t done, std::int64_t total)>;

class Steps {
 public:
  // `n_decode` tokens follow on each of `texts`; `chunk` tokens of a text are run in one step.
  Steps(std::vector<std::vector<std::int32_t>> texts, std::int64_t n_decode, std::int64_t chunk);

  // The next tokens of every sequence, of which only the last of a text wants logits. None: the run
  // has ended.
  std::vector<TokenInput> next();
  // `id` follows on the text of `seq`, all of which was run. Does nothing if enough has followed.
  void append(std::int32_t seq, std::int32_t id);

  // With what was appended.
  const std::vector<std::vector<std::int32_t>>& texts() const { return texts_; }
  // Of all steps.
  std::int64_t n_tokens() const;

 private:
  std::vector<std::vector<std::int32_t>> texts_;
  std::vector<std::size_t> ends_;  // lengths of the texts with all that follows
  std::vector<std::size_t> done_;
  std::size_t chunk_;
};

}  // namespace qwen::crosscheck
