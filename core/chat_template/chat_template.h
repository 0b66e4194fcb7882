// A model's chat template: turns the messages of a conversation into the text the model was trained
// on. An interpreter for the part of Jinja that chat templates use; it sees the values it is given
// and nothing else, and every cost has a bound.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace qwen {

// A stretch of rendered text. from_template: every character stands literally in the template (its
// text or a string in it), or in bos_token or eos_token. Otherwise it came from the messages, the
// tools, a number, a date: such text never means a special token, whatever it spells.
struct Segment {
  std::string text;
  bool from_template;
};

struct Rendered {
  std::vector<Segment> segments;  // none is empty; neighbours differ in from_template
  std::string text() const;
};

struct RenderOptions {
  bool add_generation_prompt = true;
  // The vocabulary's; a variable for each that is not empty.
  std::string bos_token = {};
  std::string eos_token = {};
  // An object of further variables, such as enable_thinking; may be null. Its strings are input.
  const nlohmann::ordered_json* extra = nullptr;
  // Seconds since 1970, for strftime_now, which writes local time; the system's clock if empty.
  std::function<std::int64_t()> clock = {};
};

class ChatTemplate {
 public:
  // Parses. Throws Error, exit kModel, key tokenizer.chat_template, line and column in the message:
  // template_too_large, template_syntax, template_unsupported (valid Jinja that is not built in),
  // template_too_deep.
  explicit ChatTemplate(std::string source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // messages: the list of the OpenAI API; tools: an array or null. The template sees these, the
  // options, and `documents` as none. Several threads may render at once.
  // Throws Error. Exit kUsage: template_raised (the template refuses the messages), template_failed
  // (it cannot be applied to them), input_too_deep, invalid_utf8, invalid_input. Exit kModel:
  // template_limit (work or length), template_too_deep, template_unsupported.
  Rendered render(const nlohmann::ordered_json& messages, const nlohmann::ordered_json& tools,
                  const RenderOptions& options = {}) const;

  // The template over any variables (an object), for templates that are not a chat's.
  Rendered render_variables(const nlohmann::ordered_json& variables) const;

 private:
  struct Parsed;
  std::unique_ptr<const Parsed> parsed_;
};

}  // namespace qwen
