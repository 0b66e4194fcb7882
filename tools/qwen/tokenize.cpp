// qwen tokenize and qwen detokenize: text to ids and back, without weights.
#include "tools/qwen/command.h"
#include "tools/qwen/input.h"
#include "tools/qwen/opened_model.h"
#include "tools/qwen/options.h"

namespace qwen::cli {
namespace {

class Tokenize : public Command {
 public:
  std::string name() const override { return "tokenize"; }
  std::string summary() const override { return "text to token ids"; }

  void declare(Parser& parser) override {
    parser.words({"MODEL", "TEXT"}, model_.words,
                 "Text is brought to Unicode NFC first, as the models' own tokenizer does.");
    model_.declare_model(parser);
    text_.declare_text(parser);
    parser.flag("--special", special_, "control tokens in the text, <|im_end|>, count as such");
    output_.declare(parser);
  }

  void run(Console& console) override {
    output_.apply(console);
    OpenedModel model(model_.take_model(console, 1, text_.given()), console);
    const std::string text = text_.read(model_.words, "text").text;
    const Tokenizer& tokenizer = model.tokenizer();
    const auto ids = tokenizer.encode(text, special_ ? Specials::kAll : Specials::kUserDefined);
    if (output_.json) {
      Json pieces = Json::array();
      for (const std::int32_t id : ids) pieces.push_back(std::string(tokenizer.piece(id)));
      console.document({{"ids", ids}, {"pieces", pieces}});
      return;
    }
    std::string line;
    for (const std::int32_t id : ids) line += (line.empty() ? "" : " ") + std::to_string(id);
    console.write(line + "\n");
  }

 private:
  ModelOptions model_;
  TextOptions text_;
  OutputOptions output_;
  bool special_ = false;
};

class Detokenize : public Command {
 public:
  std::string name() const override { return "detokenize"; }
  std::string summary() const override { return "token ids to their exact bytes"; }

  void declare(Parser& parser) override {
    parser.words({"MODEL"}, model_.words, "The bytes need not be valid UTF-8.");
    model_.declare_model(parser);
    text_.declare_ids(parser);
    output_.declare(parser);
  }

  void run(Console& console) override {
    output_.apply(console);
    OpenedModel model(model_.take_model(console), console);
    if (!text_.ids.chosen()) usage_error("no ids given", "--ids 1,2,3");
    const std::vector<std::int32_t> ids(text_.ids.value.begin(), text_.ids.value.end());
    const std::string text = model.tokenizer().decode(ids);
    if (output_.json) {
      console.document({{"text", text}});
    } else {
      console.write(text);
    }
  }

 private:
  ModelOptions model_;
  TextOptions text_;
  OutputOptions output_;
};

}  // namespace

std::unique_ptr<Command> make_tokenize() { return std::make_unique<Tokenize>(); }
std::unique_ptr<Command> make_detokenize() { return std::make_unique<Detokenize>(); }

}  // namespace qwen::cli
