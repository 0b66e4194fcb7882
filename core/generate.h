// The prefill and decode loop for one sequence.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "core/session.h"

namespace qwen {

enum class StopReason { kEos, kLength, kContext, kStop, kInterrupt };

// "eos", "length", "context", "stop", "interrupt"
std::string_view to_string(StopReason reason);

// What a listener wants after a token.
enum class Verdict { kContinue, kStop, kInterrupt };

struct GenerateOptions {
  SampleParams sampling = {};
  std::int64_t max_tokens = -1;             // -1: until an end token or the end of the context
  std::vector<std::int32_t> stop_ids = {};  // end tokens; empty: none
};

struct Generation {
  std::vector<std::int32_t> ids;  // the new tokens, the end token included
  StopReason stop = StopReason::kLength;
  double prompt_s = 0;       // prefill
  double first_token_s = 0;  // from the start of the prefill to the first token
  double generate_s = 0;     // from the first token to the last
};

// Answers `prompt` in sequence `seq`, which already holds the first `n_cached` of its tokens (fewer
// than all). After each new token that is no end token `on_token` is asked whether to go on. Throws
// Error (Exit::kContext) if the prompt leaves no room for a token.
Generation generate(Session& session, std::int32_t seq, std::span<const std::int32_t> prompt,
                    std::int32_t n_cached, const GenerateOptions& options,
                    const std::function<Verdict(std::int32_t id)>& on_token);

}  // namespace qwen
