// Generates one answer and passes its text on as it comes.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/generate.h"
#include "core/stop_filter.h"
#include "core/tokenizer/stream_decoder.h"

namespace qwen::cli {

// Tokens to text: whole characters only, nothing from a stop string on, no control tokens.
class AnswerText {
 public:
  // Without a tokenizer (null) the text is the ids, separated by spaces.
  AnswerText(const Tokenizer* tokenizer, std::vector<std::string> stops);

  // What is new and certain.
  std::string push(std::int32_t id);
  std::string finish();
  bool stopped() const { return filter_.stopped(); }

 private:
  const Tokenizer* tokenizer_;
  std::optional<StreamDecoder> decoder_;
  StopFilter filter_;
  bool first_ = true;
};

struct AnswerRequest {
  std::vector<std::int32_t> prompt;
  GenerateOptions options;
  std::vector<std::string> stops;
  Observer* observer = nullptr;  // sees every op; may be null
};

struct Answer {
  Generation generation;
  std::string text;
};

// Ctrl-C ends the answer, also within the prompt. `on_text` gets the text as it becomes certain;
// when it returns false the answer ends.
Answer make_answer(Session& session, const Tokenizer* tokenizer, const AnswerRequest& request,
                   const std::function<bool(std::string_view)>& on_text);

}  // namespace qwen::cli
