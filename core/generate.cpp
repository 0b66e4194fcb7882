#include "core/generate.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "core/error.h"

namespace qwen {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

std::string_view to_string(StopReason reason) {
  static constexpr std::array<std::string_view, 5> kNames = {"eos", "length", "context", "stop",
                                                             "interrupt"};
  return kNames[static_cast<std::size_t>(reason)];
}

Generation generate(Session& session, std::int32_t seq, std::span<const std::int32_t> prompt,
                    std::int32_t n_cached, const GenerateOptions& options,
                    const std::function<Verdict(std::int32_t id)>& on_token) {
  const std::int64_t ctx = session.options().ctx;
  const auto n_prompt = static_cast<std::int64_t>(prompt.size());
  if (n_prompt >= ctx) {
    throw Error({.exit = Exit::kContext,
                 .code = "prompt_too_long",
                 .message = "the prompt is " + std::to_string(n_prompt) +
                            " tokens, the context is " + std::to_string(ctx),
                 .hint = "-c " + std::to_string((n_prompt / 1024 + 1) * 1024)});
  }
  if (n_cached < 0 || n_cached >= n_prompt) {
    throw Error({.exit = Exit::kUsage,
                 .code = "empty_prompt",
                 .message = "the prompt has no token that is not cached yet"});
  }
  Generation result;
  session.set_sampling(seq, options.sampling);
  const Clock::time_point start = Clock::now();
  session.set_seen(seq, prompt);
  session.prefill(seq, prompt.subspan(n_cached), n_cached);
  result.prompt_s = seconds_since(start);
  if (options.max_tokens == 0) return result;

  // Tokens that can be had at most: the last one needs no place in the context.
  std::int64_t n_left = ctx - n_prompt + 1;
  if (options.max_tokens > 0) n_left = std::min(n_left, options.max_tokens);
  session.queue_sample();
  --n_left;
  Clock::time_point first;
  for (std::int64_t pos = n_prompt;; ++pos) {
    // What is queued beyond an end token is lost, but the device never waits for the host.
    while (n_left > 0 && session.n_queued() <= session.backend().queue_depth()) {
      session.queue_decode();
      --n_left;
    }
    const std::int32_t id = session.take()[0];
    if (result.ids.empty()) {
      first = Clock::now();
      result.first_token_s = seconds_since(start);
    }
    result.ids.push_back(id);
    result.generate_s = seconds_since(first);
    if (std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end()) {
      result.stop = StopReason::kEos;
      return result;
    }
    const Verdict verdict = on_token(id);
    if (verdict != Verdict::kContinue) {
      result.stop = verdict == Verdict::kStop ? StopReason::kStop : StopReason::kInterrupt;
      return result;
    }
    if (static_cast<std::int64_t>(result.ids.size()) == options.max_tokens) {
      result.stop = StopReason::kLength;
      return result;
    }
    if (pos == ctx) {
      result.stop = StopReason::kContext;
      return result;
    }
  }
}

}  // namespace qwen
