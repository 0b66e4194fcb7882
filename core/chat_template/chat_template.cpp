#include "core/chat_template/chat_template.h"

#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/chat_template/from_json.h"
#include "core/chat_template/interpreter.h"
#include "core/chat_template/text_ops.h"

namespace qwen {

struct ChatTemplate::Parsed {
  jinja::Block block;
};

namespace {

jinja::Limits limits_for(const jinja::InputSize& input) {
  jinja::Limits limits;
  // Text may be copied some thirty times and each value be visited by some two hundred steps.
  limits.work += 2 * input.bytes + 200 * input.values;
  limits.text_bytes += 8 * input.bytes;
  return limits;
}

std::int64_t system_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Rendered run(const jinja::Block& block, const jinja::Variables& variables,
             const jinja::InputSize& input, std::function<std::int64_t()> clock) {
  if (!clock) clock = system_seconds;
  const jinja::Text text =
      jinja::Interpreter(variables, limits_for(input), std::move(clock)).run(block);
  Rendered rendered;
  std::size_t begin = 0;
  for (const jinja::Text::Run& piece : text.runs()) {
    rendered.segments.push_back(
        {text.bytes().substr(begin, piece.end - begin), piece.from_template});
    begin = piece.end;
  }
  return rendered;
}

void add_object(const nlohmann::ordered_json& object, jinja::Variables& variables,
                jinja::InputSize& size) {
  for (auto it = object.begin(); it != object.end(); ++it) {
    variables.insert_or_assign(it.key(), jinja::from_json(it.value(), size));
  }
}

std::string checked(std::string source) {
  const auto fail = [](const char* code, std::string message) {
    throw Error({.exit = Exit::kModel,
                 .code = code,
                 .message = std::move(message),
                 .hint = "the model file is damaged, or give another template",
                 .key = "tokenizer.chat_template"});
  };
  if (source.size() > jinja::kMaxSourceBytes) {
    fail("template_too_large", "the chat template has " + std::to_string(source.size()) +
                                   " bytes, more than the limit of " +
                                   std::to_string(jinja::kMaxSourceBytes));
  }
  if (!jinja::is_valid_utf8(source)) fail("template_syntax", "the chat template is not UTF-8");
  return source;
}

}  // namespace

std::string Rendered::text() const {
  std::string all;
  for (const Segment& segment : segments) all += segment.text;
  return all;
}

ChatTemplate::ChatTemplate(std::string source)
    : parsed_(std::make_unique<const Parsed>(Parsed{jinja::parse(checked(std::move(source)))})) {}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

Rendered ChatTemplate::render(const nlohmann::ordered_json& messages,
                              const nlohmann::ordered_json& tools,
                              const RenderOptions& options) const {
  jinja::InputSize size;
  jinja::Variables variables;
  const auto token = [&](const char* name, const std::string& text) {
    if (text.empty()) return;
    variables[name] = jinja::TextPtr(std::make_shared<const jinja::Text>(text, true));
  };
  variables["documents"] = jinja::None{};
  token("bos_token", options.bos_token);
  token("eos_token", options.eos_token);
  if (options.extra && options.extra->is_object()) add_object(*options.extra, variables, size);
  variables["messages"] = jinja::from_json(messages, size);
  variables["tools"] = jinja::from_json(tools, size);
  variables["add_generation_prompt"] = options.add_generation_prompt;
  return run(parsed_->block, variables, size, options.clock);
}

Rendered ChatTemplate::render_variables(const nlohmann::ordered_json& variables) const {
  jinja::InputSize size;
  jinja::Variables converted;
  add_object(variables, converted, size);
  return run(parsed_->block, converted, size, {});
}

}  // namespace qwen
