// Generation as users get it: steps that are queued ahead, each with the token that the one before
// has chosen as its input. It must leave the bits that the same steps leave one by one.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/crosscheck/divergence.h"
#include "core/session.h"

namespace qwen::crosscheck {

struct GenerationCheck {
  std::int64_t n_queued = 0;  // tokens compared that followed on a token queued before them
  std::optional<Divergence> divergence = {};
};

// Generates `n_decode` tokens after each text, one text per sequence of the session, in both ways.
// The session's sequences are begun anew. Compared are the tokens and the logits of one more step,
// which every key and value of the cache has a part in.
GenerationCheck check_generation(Session& session,
                                 const std::vector<std::vector<std::int32_t>>& texts,
                                 std::int64_t n_decode);

}  // namespace qwen::crosscheck
