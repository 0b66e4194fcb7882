// qwen run: one answer.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "core/error.h"
#include "tools/qwen/answer.h"
#include "tools/qwen/chat_prompt.h"
#include "tools/qwen/command.h"
#include "tools/qwen/engine.h"
#include "tools/qwen/format.h"
#include "tools/qwen/input.h"
#include "tools/qwen/sampling.h"
#include "tools/qwen/trace.h"
#include "tools/qwen/version.h"

namespace qwen::cli {
namespace {

using Clock = std::chrono::steady_clock;

// Contexts are suggested in such steps.
constexpr std::int64_t kSuggestedStep = 4096;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Prompt {
  std::string text;
  std::vector<std::int32_t> ids;
};

class Run : public Command {
 public:
  std::string name() const override { return "run"; }
  std::string summary() const override { return "one answer (the default command)"; }

  void declare(Parser& parser) override {
    parser.words({"MODEL", "PROMPT"}, model_.words,
                 "The answer goes to standard output, all else to standard error.");
    model_.declare(parser);
    text_.declare_text(parser);
    text_.declare_ids(parser);
    parser.text_option("--system,--system-prompt", system_,
                       "-sys: system message; none: the template decides");
    parser.flag("--raw,--no-conversation", raw_,
                "no chat template: the prompt's own text is continued");
    parser.flag("--special", special_, "with --raw: control tokens in the prompt count as such");
    parser.integer(
        "-n,--predict,--n-predict", predict_, {-1, std::numeric_limits<std::int32_t>::max()},
        "at most N new tokens; -1, the default: until an end token or the context's end");
    sampling_.declare(parser);
    parser.texts("--stop,-r,--reverse-prompt", stops_,
                 "ends the answer before this text; repeatable");
    parser.flag("--ignore-eos", ignore_eos_, "go on after end tokens");
    parser.flag("--no-timings,--no-perf", no_timings_, "no summary at the end");
    parser.text_option("--trace", trace_, "a file for one JSON line per load and token");
    parser.flag("--trace-ops", trace_ops_, "with --trace: a line for each op too");
    parser.flag("--single-turn", single_turn_, "-st: one answer (always so here)");
    parser.flag("--jinja", jinja_, "use the file's chat template (always so, unless --raw)");
    parser.flag("--no-display-prompt", no_display_prompt_, "the prompt is never printed");
    parser.refuse("--conversation,-i,--interactive,--interactive-first,--multiline-input",
                  "chat is not built yet; -p TEXT gets one answer");
    parser.refuse("--chat-template,--chat-template-file", "the file's own template is used");
    parser.refuse("--system-prompt-file", "give the text by --system");
    output_.declare(parser);
    parser.footer(
        "In a chat the last line end of a file or of standard input is no part of the message.\n"
        "Texts are brought to Unicode NFC first, as the models' own tokenizer does.");
  }

  void run(Console& console) override {
    const Clock::time_point start = Clock::now();
    output_.apply(console);
    check_conflicts();
    sampling_.parse_seed();
    OpenedModel model(model_.take_model(console, 1, text_.given()), console);
    if (!stops_.empty() && !model.has_tokenizer()) {
      usage_error("--stop is a text, but the model has no vocabulary");
    }
    const TextOptions::Input input = read_prompt();
    std::optional<Trace> trace;
    if (trace_.chosen()) trace.emplace(trace_.value, trace_ops_, model.path());

    show_program(console);
    const Prompt prompt = make_prompt(model, input);
    sampling_.resolve(read_sampling_defaults(model.gguf()), model.path());
    Engine engine(model, model_, console);
    engine.check_ids(prompt.ids);
    const auto n_prompt = static_cast<std::int64_t>(prompt.ids.size());
    const StepLimits limits{.tokens = std::min(engine.backend().step_tokens(), n_prompt)};
    const std::int64_t ctx = engine.choose_context(limits);
    check_length(n_prompt, ctx, engine.shape().context_length);
    const auto session = engine.make_session(ctx, limits);
    const Tokenizer* tokenizer = model.has_tokenizer() ? &model.tokenizer() : nullptr;
    const double load_s = seconds_since(start);

    show_model(console, model, engine, *session);
    if (trace) {
      trace->load({{"model", model.description()},
                   {"device", engine.description()},
                   {"ctx", ctx},
                   {"sampling", sampling_.description()},
                   {"prompt_ids", prompt.ids},
                   {"load_s", load_s}});
      trace->attach(engine.backend(), tokenizer);
    }
    AnswerRequest request{
        .prompt = prompt.ids,
        .options = {.sampling = sampling_.params(), .max_tokens = predict_.value, .stop_ids = {}},
        .stops = stops_,
        .observer = trace ? &*trace : nullptr};
    if (!ignore_eos_) request.options.stop_ids = model.stop_ids();
    bool reader_gone = false;
    const Answer answer = make_answer(*session, tokenizer, request, [&](std::string_view text) {
      if (!output_.json) reader_gone = !console.write(text);
      return !reader_gone;
    });
    if (reader_gone) return;
    if (output_.json) {
      console.document(document(model, engine, prompt, answer, load_s));
    } else if (isatty(STDOUT_FILENO) != 0 && !answer.text.ends_with('\n')) {
      console.write("\n");  // a shell's prompt shall not stand behind the answer
    }
    if (!no_timings_) show_summary(console, answer.generation, n_prompt, ctx, load_s);
  }

 private:
  void check_conflicts() const {
    if (system_.chosen() && raw_) usage_error("--system and --raw exclude each other: no template");
    if (system_.chosen() && text_.ids.chosen()) {
      usage_error("--system and --ids exclude each other: no template");
    }
    if (special_ && !raw_) {
      usage_error("--special needs --raw: what a message holds is always plain text");
    }
    if (special_ && text_.ids.chosen()) usage_error("--special and --ids exclude each other");
    if (trace_ops_ && !trace_.chosen()) usage_error("--trace-ops needs --trace FILE");
    if (std::find(stops_.begin(), stops_.end(), "") != stops_.end()) {
      usage_error("--stop is empty, expected a text");
    }
  }

  TextOptions::Input read_prompt() const {
    if (model_.words.empty() && !text_.given() && isatty(STDIN_FILENO) != 0) {
      usage_error("no prompt given, and chat is not built yet", "-p TEXT gets one answer");
    }
    TextOptions::Input input = text_.read(model_.words, "prompt");
    if (!input.from_stream || raw_) return input;
    // `echo hi | qwen` means "hi".
    if (input.text.ends_with('\n')) input.text.pop_back();
    if (input.text.ends_with('\r')) input.text.pop_back();
    if (input.text.empty()) usage_error("the prompt is empty", "-p TEXT gives one");
    return input;
  }

  Prompt make_prompt(OpenedModel& model, const TextOptions::Input& input) const {
    Prompt prompt;
    if (input.ids) {
      prompt.ids = *input.ids;
    } else if (raw_) {
      prompt.text = input.text;
      prompt.ids =
          model.tokenizer().encode(input.text, special_ ? Specials::kAll : Specials::kUserDefined);
    } else {
      const Tokenizer& tokenizer = model.tokenizer();
      Json messages = Json::array();
      if (system_.chosen()) messages.push_back({{"role", "system"}, {"content", system_.value}});
      messages.push_back({{"role", "user"}, {"content", input.text}});
      const Rendered rendered = render_chat(model, messages, nullptr, true);
      prompt.text = rendered.text();
      prompt.ids = encode_segments(tokenizer, rendered.segments);
    }
    if (prompt.ids.empty()) usage_error("the prompt is empty");
    return prompt;
  }

  static void check_length(std::int64_t n_prompt, std::int64_t ctx, std::int64_t trained) {
    if (n_prompt < ctx) return;
    const std::int64_t larger = std::min((n_prompt / kSuggestedStep + 1) * kSuggestedStep, trained);
    throw Error({.exit = Exit::kContext,
                 .code = "prompt_too_long",
                 .message = "the prompt is " + thousands(n_prompt) + " tokens, the context is " +
                            thousands(ctx),
                 .hint = n_prompt < larger ? "-c " + std::to_string(larger)
                                           : "the model was trained for " + thousands(trained) +
                                                 " tokens: shorten the prompt"});
  }

  // The lines of the start, for those who watch.
  void show_program(Console& console) const {
    if (console.terminal()) console.aside(std::string("qwen ") + version());
  }

  void show_model(Console& console, OpenedModel& model, const Engine& engine,
                  const Session& session) const {
    const ModelShape& m = engine.shape();
    const std::int64_t ctx = session.options().ctx;
    if (console.terminal()) {
      console.aside(engine.device().kind + " · " + engine.description()["name"].get<std::string>() +
                    " · " + std::to_string(engine.threads()) + " threads");
      console.aside((model.name().empty() ? model.path() : model.name()) + " · " +
                    model.file_type() + " · " + parameters_text(m.n_params) + " · " +
                    std::to_string(m.n_layers) + " layers · vocab " + std::to_string(m.n_vocab));
      console.aside(
          "context " + std::to_string(ctx) + (ctx == m.context_length ? " (trained)" : "") +
          " · KV " + bytes_text(session.kv().shape().bytes()) + " " +
          std::string(info(session.kv().shape().dtype).name) + " · " + sampling_.summary());
    }
    const auto show = [&](const char* what, const std::string& value, const std::string& source) {
      console.detail(std::string(what) + " = " + value + " (" + source + ")");
    };
    show("model", model.path(), model_.model.source);
    show("device", engine.device().kind, model_.device.source);
    show("threads", std::to_string(engine.threads()),
         engine.device().kind == "ref" ? kBuiltIn : model_.threads.source);
    show("ctx-size", std::to_string(ctx), model_.ctx.chosen() ? model_.ctx.source : kFromFile);
    show("kv", std::string(info(session.kv().shape().dtype).name), model_.kv.source);
    show("layers", std::to_string(session.options().n_layers),
         model_.layers.chosen() ? model_.layers.source : kFromFile);
    show("predict", std::to_string(predict_.value), predict_.source);
    sampling_.explain(console);
  }

  Json document(OpenedModel& model, const Engine& engine, const Prompt& prompt,
                const Answer& answer, double load_s) const {
    const Generation& g = answer.generation;
    const bool decoded = prompt.text.empty() && model.has_tokenizer();
    return {{"model", model.description()},
            {"device", engine.description()},
            {"prompt",
             {{"text", decoded ? model.tokenizer().decode(prompt.ids) : prompt.text},
              {"ids", prompt.ids}}},
            {"ids", g.ids},
            {"text", answer.text},
            {"stop", to_string(g.stop)},
            {"sampling", sampling_.description()},
            {"timings",
             {{"load_s", load_s},
              {"prompt_tokens", prompt.ids.size()},
              {"prompt_s", g.prompt_s},
              {"first_token_s", g.first_token_s},
              {"generated_tokens", g.ids.size()},
              {"generate_s", g.generate_s}}}};
  }

  void show_summary(Console& console, const Generation& g, std::int64_t n_prompt, std::int64_t ctx,
                    double load_s) const {
    const auto n = static_cast<std::int64_t>(g.ids.size());
    const auto seconds = [](double s) { return fixed(s, s < 0.095 ? 2 : 1) + " s"; };
    std::string line = "load " + seconds(load_s) + " · prompt ";
    const std::string end = " · seed " + std::to_string(sampling_.seed());
    if (n == 0 && g.stop == StopReason::kInterrupt) {
      // How much of the prompt was done is not known.
      console.aside(line + "of " + thousands(n_prompt) + " tok stopped after " +
                    seconds(g.prompt_s) + " · stop: interrupt" + end);
      return;
    }
    line +=
        thousands(n_prompt) + " tok " + rate(static_cast<double>(n_prompt) / g.prompt_s) + " tok/s";
    if (n > 0) line += " · first token " + thousands(std::llround(g.first_token_s * 1e3)) + " ms";
    line += " · " + thousands(n) + " tok";
    // The first token comes out of the prompt; the time is that of the others.
    if (n > 1) line += " " + rate(static_cast<double>(n - 1) / g.generate_s) + " tok/s";
    line += " · stop: " + std::string(to_string(g.stop)) + " · ctx " +
            std::to_string(std::min(n_prompt + n, ctx)) + "/" + std::to_string(ctx) + end;
    console.aside(line);
  }

  ModelOptions model_;
  TextOptions text_;
  SamplingOptions sampling_;
  OutputOptions output_;
  Setting<std::string> system_;
  Setting<std::string> trace_;
  Setting<std::int64_t> predict_{-1};
  std::vector<std::string> stops_;
  bool raw_ = false;
  bool special_ = false;
  bool ignore_eos_ = false;
  bool no_timings_ = false;
  bool trace_ops_ = false;
  bool single_turn_ = false;
  bool jinja_ = false;
  bool no_display_prompt_ = false;
};

}  // namespace

std::unique_ptr<Command> make_run() { return std::make_unique<Run>(); }

}  // namespace qwen::cli
