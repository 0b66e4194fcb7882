#include "tools/qwen/chat_prompt.h"

#include <optional>

#include "core/error.h"

namespace qwen::cli {

std::vector<std::int32_t> encode_segments(const Tokenizer& tokenizer,
                                          std::span<const Segment> segments) {
  std::vector<std::int32_t> ids;
  std::string stretch;
  const auto end_stretch = [&] {
    tokenizer.encode(stretch, Specials::kNone, ids);
    stretch.clear();
  };
  for (const Segment& segment : segments) {
    std::size_t from = 0;
    while (segment.from_template) {
      const auto match = tokenizer.find_special(segment.text, from, Specials::kAll);
      if (!match) break;
      stretch.append(segment.text, from, match->offset - from);
      end_stretch();
      ids.push_back(match->id);
      from = match->offset + match->length;
    }
    stretch.append(segment.text, from);
  }
  end_stretch();
  return ids;
}

Rendered render_chat(OpenedModel& model, const Json& messages, const Json& tools,
                     bool add_generation_prompt) {
  const TokenizerData& data = model.tokenizer_data();
  if (!data.chat_template) {
    throw Error({.exit = Exit::kModel,
                 .code = "no_chat_template",
                 .message = "file has no chat template",
                 .hint = "--raw continues the text as it is",
                 .file = model.path(),
                 .key = "tokenizer.chat_template"});
  }
  RenderOptions options{.add_generation_prompt = add_generation_prompt};
  const auto spelled = [&](const std::optional<std::uint32_t>& id) {
    return id ? std::string(model.tokenizer().piece(static_cast<std::int32_t>(*id))) : "";
  };
  options.bos_token = spelled(data.bos);
  options.eos_token = spelled(data.eos);
  const ChatTemplate chat = model.reading([&] { return ChatTemplate(*data.chat_template); });
  try {
    return chat.render(messages, tools, options);
  } catch (Error& error) {
    if (error.info().exit == Exit::kModel)
      error.set_file(model.path());  // else the messages' fault
    throw;
  }
}

}  // namespace qwen::cli
