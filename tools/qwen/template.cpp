// qwen template: renders a chat with the model's own template.
#include "tools/qwen/chat_prompt.h"
#include "tools/qwen/command.h"
#include "tools/qwen/input.h"
#include "tools/qwen/json_input.h"
#include "tools/qwen/options.h"

namespace qwen::cli {
namespace {

Json read_array(const std::string& path, const std::string& what) {
  return parse_json_list(read_input(path), path == "-" ? "standard input" : path, what);
}

class Template : public Command {
 public:
  std::string name() const override { return "template"; }
  std::string summary() const override { return "renders a chat with the model's own template"; }

  void declare(Parser& parser) override {
    parser.words({"MODEL"}, model_.words, "The messages are the list of the OpenAI API.");
    model_.declare_model(parser);
    parser.text_option("-f,--file", messages_, "the messages, JSON; - or nothing: standard input");
    parser.text_option("--tools", tools_, "a file with the list of tools, JSON");
    parser.flag("--no-generation-prompt", no_generation_prompt_,
                "without the beginning of the answer");
    output_.declare(parser);
  }

  void run(Console& console) override {
    output_.apply(console);
    OpenedModel model(model_.take_model(console), console);
    if (messages_.value == "-" && tools_.value == "-") {
      usage_error("the messages and the tools cannot both come from standard input");
    }
    const Json messages = read_array(messages_.chosen() ? messages_.value : "-", "messages");
    const Json tools = tools_.chosen() ? read_array(tools_.value, "tools") : Json(nullptr);
    const Rendered rendered = render_chat(model, messages, tools, !no_generation_prompt_);
    if (output_.json) {
      console.document({{"text", rendered.text()},
                        {"ids", encode_segments(model.tokenizer(), rendered.segments)}});
    } else {
      console.write(rendered.text());
    }
  }

 private:
  ModelOptions model_;
  OutputOptions output_;
  Setting<std::string> messages_;
  Setting<std::string> tools_;
  bool no_generation_prompt_ = false;
};

}  // namespace

std::unique_ptr<Command> make_template() { return std::make_unique<Template>(); }

}  // namespace qwen::cli
