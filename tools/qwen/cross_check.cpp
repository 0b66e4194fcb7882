// qwen cross-check: whether a device computes what the oracle computes, op by op, and if not, where
// and why.
#include "core/crosscheck/cross_check.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "core/crosscheck/faults.h"
#include "core/error.h"
#include "tools/qwen/command.h"
#include "tools/qwen/cross_check_against.h"
#include "tools/qwen/cross_check_detail.h"
#include "tools/qwen/cross_check_free.h"
#include "tools/qwen/cross_check_page.h"
#include "tools/qwen/divergence_text.h"
#include "tools/qwen/engine.h"
#include "tools/qwen/format.h"
#include "tools/qwen/input.h"
#include "tools/qwen/kept_bundles.h"
#include "tools/qwen/output_file.h"
#include "tools/qwen/replay.h"

namespace qwen::cli {
namespace {

using crosscheck::Agreement;
using crosscheck::CrossCheckResult;
using crosscheck::Divergence;

constexpr std::int64_t kMaxTokens = 1 << 20;
// Tokens of a sequence in one step of the prefill: two steps at least for texts beyond this, so
// that a text that is cut is always a part of the check.
constexpr std::int64_t kShortStep = 24;
constexpr std::int64_t kLongStep = 512;
constexpr std::int64_t kMaxSequences = 64;
// Of a report; the last one says where the repro is.
constexpr std::ptrdiff_t kMaxLines = 15;

// What is run if no text is given: three sequences of different lengths.
constexpr const char* kTexts[] = {
    "The cross-check runs a path and an oracle side by side. What differs by more than rounding "
    "can "
    "explain is wrong, and the place where it differs first says where to look.",
    "def fibonacci(n):\n    a, b = 0, 1\n    while a < n:\n",
    "Rain",
};

std::string verdict(Agreement agreement) {
  switch (agreement) {
    case Agreement::kAgree:
      return "agree";
    case Agreement::kDiverge:
      return "diverge";
    case Agreement::kCannotTell:
      break;
  }
  return "cannot_tell";
}

std::string announcement(const Divergence& d) {
  return "differs: token " + std::to_string(d.token) + place(d.tap) + " op " +
         value_name(d.tap, d.output) + ", " + thousands(d.n_failed) + " of " +
         thousands(d.n_elements) + " elements; going on to find out why";
}

class CrossCheck : public Command {
 public:
  std::string name() const override { return "cross-check"; }
  std::string summary() const override {
    return "proves a device against the oracle, op by op, and names what is wrong";
  }

  void declare(Parser& parser) override {
    parser.words(
        {"MODEL"}, model_.words,
        "Three built-in texts as one ragged batch, unless a text is given. The first steps of the "
        "decode are also run as the device runs them by itself, fused and as a graph.");
    model_.declare(parser);
    text_.declare_text(parser);
    text_.declare_ids(parser);
    parser.choice("--oracle", oracle_, {"ref", "cpu"},
                  "who computes each op again; default: ref for --device cpu, cpu for cuda. ref "
                  "judges again what cpu finds wrong");
    parser.integer("-n,--tokens", tokens_, {0, kMaxTokens},
                   "tokens that follow each text, the likeliest ones; default 16");
    parser.integer("--sequences", sequences_, {1, kMaxSequences},
                   "with a text: this many sequences, each with a smaller part of it: the whole, a "
                   "half, a third, ...; default 1");
    parser.choice(
        "--mode", mode_, {"shadow", "forced", "free"},
        "shadow: op by op, each from what the device has; forced: from what the oracle has; free: "
        "each side alone; default: shadow, and if that agrees free on the same tokens");
    parser.flag("--selftest", self_test_,
                "plant each known fault in the device's path, and see that it is caught and named");
    parser.text_option("--html", html_,
                       "write the report to this file: a page that needs nothing else, with how "
                       "near each op of each token came to its tolerance");
    parser.text_option("--against", against_, kAgainstHelp);
    parser.flag("--detail", detail_, "with --json: list every check, token by token");
    parser.text_option("--bundle", bundle_dir_,
                       "keep each failed op as a folder in this one: what it was given and made, "
                       "with a script that judges it without this program");
    parser.text_option("--replay", replay_,
                       "judge such a folder again, and run its op on the device; no model is "
                       "needed");
    output_.declare(parser);
  }

  void run(Console& console) override {
    output_.apply(console);
    if (replay_.chosen()) return replay(console);
    check_usage();
    OpenedModel opened(model_.take_model(console), console);
    if (against_.chosen()) {
      Engine engine(opened, model_, console);
      return run_against(console, opened, engine, against_.value, output_.json);
    }
    const std::vector<std::vector<std::int32_t>> texts = read_texts(opened);
    Engine engine(opened, model_, console);
    if (engine.device().kind == "ref") {
      usage_error("--device ref is what the others are checked against",
                  "qwen score compares it with given log-probabilities");
    }
    for (const auto& text : texts) engine.check_ids(text);
    const std::string kind =
        oracle_.chosen() ? oracle_.value : (engine.device().kind == "cpu" ? "ref" : "cpu");
    if (kind == engine.device().kind) {
      usage_error("--oracle cpu computes as --device cpu does: they would agree on any fault",
                  "--oracle ref");
    }
    std::optional<OutputFile> html;
    if (html_.chosen()) html.emplace("--html", html_.value, opened.path());
    const auto reference = make_backend("ref", {});
    const auto host = make_backend("cpu", {.exact = true});
    const crosscheck::Sides sides{.path = engine.backend(),
                                  .oracle = kind == "ref" ? *reference : *host,
                                  .reference = *reference,
                                  .host = *host};
    KeptBundles bundles(bundle_dir_.value, *reference);
    const auto announce = [&console](const Divergence& d) { console.note(announcement(d)); };
    const crosscheck::CrossCheckOptions options{
        .texts = texts,
        .n_decode = tokens_.value,
        .chunk = step_tokens(texts.front()),
        .kv_dtype = engine.kv_dtype(),
        .n_layers = model_.layers.value,
        .mode = mode(),
        .detail = detail_ || html_.chosen(),
        .progress =
            [&](std::span<const TokenInput>, std::int64_t done, std::int64_t total) {
              console.bar("checking  token " + thousands(done) + " of " + thousands(total));
            },
        .found = self_test_ ? crosscheck::Found() : announce,
        .keep = bundles.keep()};
    const auto open = [&]() -> std::unique_ptr<ModelFile> {
      return std::make_unique<GgufModelFile>(opened.gguf());
    };
    if (self_test_) {
      return report(console,
                    opened.reading([&] { return crosscheck::self_test(sides, open, options); }));
    }
    const auto file = open();
    const auto model = opened.reading([&] { return load_model(*file, sides.oracle); });
    const CrossCheckResult result = opened.reading([&] {
      return crosscheck::cross_check(sides, {engine.model(), *model, *file}, options);
    });
    console.bar("");
    bundles.write(result.shadow, {opened.description(), engine.description(), kind});
    const std::string names = engine.device().kind + " against " + kind;
    Json report = document(opened, engine, kind, result);
    const std::string said = text(names, result) + (result.free ? free_text(*result.free) : "");
    if (html) html->write(cross_check_page(report, result.shadow, said));
    if (detail_) report["checks_detail"] = checks_detail(result.shadow);
    if (output_.json) {
      if (bundle_dir_.chosen()) report["bundles"] = bundles.folders();
      console.document(report);
    } else {
      console.write(said + bundles.text(result.shadow));
    }
    if (result.agreement != Agreement::kAgree) throw Finished{Exit::kFailed};
  }

 private:
  void check_usage() const {
    const bool own_text = text_.prompt.chosen() || text_.file.chosen() || text_.ids.chosen();
    if (against_.chosen() &&
        (own_text || oracle_.chosen() || mode_.chosen() || tokens_.from_option() || self_test_ ||
         detail_ || html_.chosen() || bundle_dir_.chosen() || model_.layers.chosen())) {
      usage_error("--against has its own text, its own report and no oracle",
                  "leave out -p, -f, --ids, -n, --oracle, --mode, --layers, --selftest, --html, "
                  "--detail, --bundle");
    }
    if (sequences_.from_option() && !own_text) {
      usage_error("--sequences cuts a text into parts: there is none", "give one: -p, -f or --ids");
    }
    if (model_.ctx.from_option()) {
      usage_error("cross-check makes a context as long as its texts", "leave out -c");
    }
    for (const Setting<std::string>* path : {&html_, &bundle_dir_, &against_}) {
      if (path->chosen() && path->value.empty()) {
        usage_error("--html, --bundle and --against take a path, not an empty text",
                    "leave the option out");
      }
    }
    if (detail_ && !output_.json) usage_error("--detail is for --json", "add --json");
    if (mode_.value == "free" && (bundle_dir_.chosen() || detail_ || html_.chosen())) {
      usage_error("--mode free judges no ops: --html, --detail and --bundle have nothing to show",
                  "--mode shadow");
    }
    if (!self_test_) return;
    if (mode_.chosen()) usage_error("--selftest has no modes", "leave --mode out");
    if (detail_ || html_.chosen() || bundle_dir_.chosen()) {
      usage_error("--selftest has its own report: --html, --detail and --bundle are for one run",
                  "leave them out");
    }
  }

  crosscheck::Mode mode() const {
    if (self_test_) return crosscheck::Mode::kShadow;
    if (!mode_.chosen()) return crosscheck::Mode::kBoth;
    if (mode_.value == "forced") return crosscheck::Mode::kForced;
    return mode_.value == "free" ? crosscheck::Mode::kFree : crosscheck::Mode::kShadow;
  }

  void replay(Console& console) const {
    const auto refuse = [](const std::string& option, bool given) {
      if (given) usage_error("--replay takes all from its folder: " + option + " has no meaning");
    };
    refuse("MODEL", model_.model.from_option() || !model_.words.empty());
    refuse("a text", text_.prompt.chosen() || text_.file.chosen() || text_.ids.chosen());
    refuse("--oracle", oracle_.from_option());
    refuse("-n", tokens_.from_option());
    refuse("--kv", model_.kv.from_option());
    refuse("-c", model_.ctx.from_option());
    refuse("--layers", model_.layers.from_option());
    refuse("--selftest", self_test_);
    refuse("--bundle", bundle_dir_.chosen());
    refuse("--mode", mode_.chosen());
    refuse("--html", html_.chosen());
    refuse("--against", against_.chosen());
    refuse("--detail", detail_);
    if (replay_bundle(replay_.value, model_, console)) throw Finished{Exit::kFailed};
  }

  // The first text is the longest.
  static std::int64_t step_tokens(const std::vector<std::int32_t>& text) {
    return std::clamp<std::int64_t>((static_cast<std::int64_t>(text.size()) + 1) / 2, kShortStep,
                                    kLongStep);
  }

  std::vector<std::vector<std::int32_t>> read_texts(OpenedModel& opened) const {
    const auto encoded = [&](std::string_view text) {
      return opened.tokenizer().encode(std::string(text), Specials::kUserDefined);
    };
    if (text_.prompt.chosen() || text_.file.chosen() || text_.ids.chosen()) {
      const TextOptions::Input input = text_.read(model_.words, "text");
      const auto ids = input.ids ? *input.ids : encoded(input.text);
      if (ids.empty()) usage_error("the text is empty", "leave it out for built-in texts");
      const auto n = static_cast<std::size_t>(sequences_.value);
      if (ids.size() < n) {
        usage_error("the text has fewer tokens than there are --sequences",
                    "--sequences " + std::to_string(ids.size()) + " at most");
      }
      std::vector<std::vector<std::int32_t>> parts;
      for (std::size_t k = 1; k <= n; ++k) {
        parts.emplace_back(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(ids.size() / k));
      }
      return parts;
    }
    std::vector<std::vector<std::int32_t>> texts;
    for (const char* text : kTexts) texts.push_back(encoded(text));
    return texts;
  }

  // Nothing if nothing was checked.
  static std::string widest_text(const crosscheck::ShadowResult& shadow) {
    if (shadow.unsound_outputs.empty()) return "";
    const crosscheck::Unsound& u = widest(shadow);
    return "     widest: " + value_name(u.tap, u.output) + place(u.tap) + " at token " +
           std::to_string(u.token) + " of seq " + std::to_string(u.seq) + ": the median bound is " +
           scientific(100 * u.spread.median) + " % of the values' rms, " +
           scientific(100 * u.spread.beyond) + " % of the bounds exceed the largest value\n";
  }

  // Outputs whose contracts promise less than the path keeps.
  static std::string loose_text(const crosscheck::ShadowResult& shadow) {
    if (shadow.loose.empty()) return "";
    std::string names;
    for (const crosscheck::Nearness& n : shadow.loose) {
      names += (names.empty() ? " " : ", ") + value_name({n.tap}, n.output) + " (worst " +
               scientific(n.ratio) + ")";
    }
    return "     LOOSE contracts, whose bounds could be a hundred times nearer:" + names + "\n";
  }

  // At most 15 lines.
  static std::string text(const std::string& names, const CrossCheckResult& result) {
    const crosscheck::ShadowResult& shadow = result.shadow;
    std::string out;
    std::string counts = thousands(result.n_tokens) + " tokens";
    if (shadow.n_checks > 0) {
      counts += ", " + thousands(shadow.n_checks) + " checks, " + thousands(shadow.n_elements) +
                " elements, " + thousands(result.attestation.n_constants) + " weights attested";
    }
    if (result.agreement == Agreement::kAgree) {
      out = "PASS " + names + ": " + counts + "\n";
      if (shadow.n_checks == 0) return out;
      return out + "     worst " + fixed(shadow.worst.element.ratio(), 2) +
             " of the tolerance, at " + value_name(shadow.worst.tap, shadow.worst.output) +
             place(shadow.worst.tap) + "\n" + loose_text(shadow);
    }
    if (result.agreement == Agreement::kCannotTell) {
      return "CANNOT TELL " + names + ": the bounds of " + thousands(shadow.n_unsound) + " of " +
             thousands(shadow.n_checks) + " outputs are too wide to say anything\n" +
             widest_text(shadow);
    }
    out = "FAIL " + names + ": " + counts + "\n";
    std::size_t shown = 0;
    for (const crosscheck::Finding& f : result.attestation.findings) {
      if (shown++ == 3) break;
      out += "FAIL load" + place(f.tap) + " " + std::string(f.tap.name) + " " + f.operand + ": " +
             f.got + ", expected " + f.expected + "\n     cause: " + f.cause + "\n";
    }
    if (result.attestation.findings.size() > 3) {
      out += "     " + std::to_string(result.attestation.findings.size() - 3) + " more at load\n";
    }
    if (shadow.divergences.empty()) return out;
    out += divergence_text(shadow.divergences.front());
    const auto n_lines = std::count(out.begin(), out.end(), '\n');
    return out + other_places(shadow.divergences, kMaxLines - 1 - n_lines);
  }

  // In at most n_lines.
  static std::string other_places(const std::vector<Divergence>& all, std::ptrdiff_t n_lines) {
    std::vector<std::string> seen = {std::string(all.front().tap.name)};
    std::string out;
    for (const Divergence& d : all) {
      const std::string tap(d.tap.name);
      if (std::find(seen.begin(), seen.end(), tap) != seen.end()) continue;
      seen.push_back(tap);
      if (n_lines-- <= 0) break;
      out += "     also " + tap + " from token " + std::to_string(d.token) + place(d.tap) + ": " +
             d.cause.name + "\n";
    }
    return out;
  }

  static Json document(OpenedModel& opened, const Engine& engine, const std::string& oracle,
                       const CrossCheckResult& result) {
    const crosscheck::ShadowResult& shadow = result.shadow;
    Json findings = Json::array();
    for (const crosscheck::Finding& f : result.attestation.findings) {
      findings.push_back({{"op", std::string(f.tap.name)},
                          {"layer", f.tap.layer < 0 ? Json(nullptr) : Json(f.tap.layer)},
                          {"operand", f.operand},
                          {"got", f.got},
                          {"expected", f.expected},
                          {"cause", f.cause}});
    }
    Json places = Json::array();
    for (const Divergence& d : shadow.divergences) places.push_back(divergence_json(d));
    return {{"schema", 1},
            {"verdict", verdict(result.agreement)},
            {"model", opened.description()},
            {"device", engine.description()},
            {"oracle", oracle},
            {"tokens", result.n_tokens},
            {"checks", shadow.n_checks},
            {"elements", shadow.n_elements},
            {"unsound", shadow.n_unsound},
            {"unsound_outputs", unsound_outputs(shadow)},
            {"worst",
             {{"op", value_name(shadow.worst.tap, shadow.worst.output)},
              {"layer", shadow.worst.tap.layer},
              {"ratio", shadow.worst.element.ratio()}}},
            {"loose", loose_outputs(shadow)},
            {"load",
             {{"weights", result.attestation.n_constants},
              {"bytes", result.attestation.n_bytes},
              {"findings", findings}}},
            {"fused",
             {{"runs", result.fused.n_runs},
              {"elements", result.fused.n_elements},
              {"coarse", result.fused.n_coarse},
              {"wide", result.fused.n_wide},
              {"programs", result.fused.n_programs},
              {"queued", result.fused.n_queued}}},
            {"logits", result.free ? logits_json(*result.free) : Json(nullptr)},
            {"drift", result.free ? drift_json(*result.free) : Json(nullptr)},
            {"first_divergence", places.empty() ? Json(nullptr) : places.front()},
            {"divergences", places}};
  }

  void report(Console& console, const crosscheck::SelfTest& test) const {
    console.bar("");
    std::int64_t total = 0, caught = 0, placed = 0, named = 0;
    Json faults = Json::array();
    std::string lines;
    for (const crosscheck::FaultResult& f : test.faults) {
      if (!f.applies) {
        lines += f.id + " " + f.planted + ": changes nothing here\n";
        continue;
      }
      ++total;
      caught += f.caught;
      placed += f.placed;
      named += f.named;
      faults.push_back({{"name", f.id},
                        {"planted", f.planted},
                        {"caught", f.caught},
                        {"placed", f.placed},
                        {"named", f.named},
                        {"op", value_name(f.first.tap, f.first.output)},
                        {"layer", f.first.tap.layer},
                        {"token", f.first.token},
                        {"ratio", number(f.first.element.ratio())}});
      if (f.caught && f.placed && f.named) continue;
      lines += f.id + " " + f.planted + ": " +
               (!f.caught   ? "not caught"
                : !f.placed ? "not where it is"
                            : "named '" + f.first.cause.name + "'") +
               "\n";
    }
    if (output_.json) {
      console.document({{"faults", faults},
                        {"caught", caught},
                        {"placed", placed},
                        {"named", named},
                        {"total", total},
                        {"false_alarms", test.false_alarms}});
    } else {
      console.write(lines + std::to_string(total) + " faults: " + std::to_string(caught) +
                    " caught, " + std::to_string(placed) + " at the right op and token, " +
                    std::to_string(named) + " named; " + std::to_string(test.false_alarms) +
                    " false alarms\n");
    }
    if (named < total || placed < total || test.false_alarms > 0) throw Finished{Exit::kFailed};
  }

  ModelOptions model_;
  TextOptions text_;
  OutputOptions output_;
  Setting<std::string> oracle_;
  Setting<std::string> mode_;
  Setting<std::int64_t> tokens_{16};
  Setting<std::int64_t> sequences_{1};
  bool self_test_ = false;
  Setting<std::string> html_;
  Setting<std::string> against_;
  bool detail_ = false;
  Setting<std::string> bundle_dir_;
  Setting<std::string> replay_;
};

}  // namespace

std::unique_ptr<Command> make_cross_check() { return std::make_unique<CrossCheck>(); }

}  // namespace qwen::cli
