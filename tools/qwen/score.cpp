// qwen score: how likely a given text is, token by token.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "tools/qwen/candidates.h"
#include "tools/qwen/command.h"
#include "tools/qwen/engine.h"
#include "tools/qwen/format.h"
#include "tools/qwen/input.h"

namespace qwen::cli {
namespace {

// Tokens per step: their logits are 64 rows of the vocabulary, 40 MB for 152 thousand.
constexpr std::int64_t kStepTokens = 64;

struct Candidate {
  std::int32_t id;
  double logprob;
};

struct TokenScore {
  std::int32_t id = 0;
  double logprob = 0;  // natural logarithm; not-a-number for the first token
  std::vector<Candidate> top = {};
};

// As log_sum_exp(). Throws Error if it is not finite.
double checked_log_sum_exp(std::span<const float> logits, std::size_t pos) {
  const double lse = log_sum_exp(logits);
  if (!std::isfinite(lse)) {
    throw Error({.exit = Exit::kFailed,
                 .code = "not_finite",
                 .message = "the logits after token " + std::to_string(pos) + " are not finite",
                 .hint = "the model file is damaged or has an infinite weight"});
  }
  return lse;
}

std::vector<Candidate> best(std::span<const float> logits, double lse, std::size_t k) {
  std::vector<Candidate> out;
  for (const std::int32_t id : likeliest(logits, k)) out.push_back({id, logits[id] - lse});
  return out;
}

class Score : public Command {
 public:
  std::string name() const override { return "score"; }
  std::string summary() const override {
    return "log-probabilities and perplexity of a given text";
  }

  void declare(Parser& parser) override {
    parser.words({"MODEL"}, model_.words, "The text is taken as it is: no chat template.");
    model_.declare(parser);
    text_.declare_text(parser);
    text_.declare_ids(parser);
    parser.flag("--raw", raw_, "no chat template (always so here)");
    parser.flag("--special", special_, "control tokens in the text count as such");
    parser.integer("--top", top_, {0, 1'000'000},
                   "the K likeliest tokens at each place; default 5");
    output_.declare(parser);
  }

  void run(Console& console) override {
    output_.apply(console);
    OpenedModel model(model_.take_model(console), console);
    const TextOptions::Input input = text_.read(model_.words, "text");
    std::vector<std::int32_t> ids =
        input.ids ? *input.ids
                  : model.tokenizer().encode(input.text,
                                             special_ ? Specials::kAll : Specials::kUserDefined);
    if (ids.empty()) usage_error("the text is empty");
    Engine engine(model, model_, console);
    engine.check_ids(ids);
    const std::vector<TokenScore> scores = score(engine, ids, console);
    double nll = 0;
    for (std::size_t i = 1; i < scores.size(); ++i) nll -= scores[i].logprob;
    report(console, model, engine, scores, nll);
  }

 private:
  std::vector<TokenScore> score(Engine& engine, const std::vector<std::int32_t>& ids,
                                Console& console) const {
    const auto n = static_cast<std::int64_t>(ids.size());
    const StepLimits limits{.tokens = kStepTokens, .rows = kStepTokens};
    const std::int64_t ctx = engine.choose_context(limits, n);
    if (n > ctx) {
      throw Error(
          {.exit = Exit::kContext,
           .code = "prompt_too_long",
           .message = "the text is " + thousands(n) + " tokens, the context is " + thousands(ctx),
           .hint = "score it in parts"});
    }
    const auto session = engine.make_session(n, limits);
    std::vector<TokenScore> scores(ids.size());
    scores[0] = {ids[0], std::numeric_limits<double>::quiet_NaN()};
    std::vector<float> row(static_cast<std::size_t>(engine.shape().n_vocab));
    for (std::int64_t begin = 0; begin + 1 < n; begin += kStepTokens) {
      console.bar("scoring  " + thousands(begin) + " of " + thousands(n));
      // The last token predicts nothing that is scored.
      const std::int64_t end = std::min(begin + kStepTokens, n - 1);
      std::vector<TokenInput> tokens;
      for (std::int64_t i = begin; i < end; ++i) {
        tokens.push_back({ids[i], static_cast<std::int32_t>(i), 0, true});
      }
      const Tensor logits = session->step(tokens);
      for (std::int64_t i = begin; i < end; ++i) {
        session->backend().read(row.data(), logits.slice(i - begin, i - begin + 1));
        const double lse = checked_log_sum_exp(row, static_cast<std::size_t>(i));
        scores[i + 1] = {ids[i + 1], row[ids[i + 1]] - lse,
                         best(row, lse, static_cast<std::size_t>(top_.value))};
      }
    }
    console.bar("");
    return scores;
  }

  void report(Console& console, OpenedModel& model, const Engine& engine,
              const std::vector<TokenScore>& scores, double nll) const {
    const std::size_t n_scored = scores.size() - 1;
    const double perplexity = std::exp(nll / static_cast<double>(n_scored));
    if (!output_.json) {
      console.write("nll " + fixed(nll, 6) + "\nn_scored " + std::to_string(n_scored) +
                    "\nperplexity " + (n_scored > 0 ? fixed(perplexity, 6) : "-") + "\n");
      return;
    }
    const bool has_text = model.has_tokenizer();
    const auto piece = [&](std::int32_t id) {
      return has_text ? std::string(model.tokenizer().piece(id)) : std::string();
    };
    Json tokens = Json::array();
    Json ids = Json::array();
    for (std::size_t i = 0; i < scores.size(); ++i) {
      const TokenScore& s = scores[i];
      Json top = Json::array();
      for (const Candidate& c : s.top) {
        top.push_back({{"id", c.id}, {"piece", piece(c.id)}, {"logprob", c.logprob}});
      }
      ids.push_back(s.id);
      tokens.push_back({{"id", s.id},
                        {"piece", piece(s.id)},
                        {"logprob", i == 0 ? Json(nullptr) : Json(s.logprob)},
                        {"top", std::move(top)}});
    }
    console.document({{"model", model.description()},
                      {"device", engine.description()},
                      {"ids", ids},
                      {"tokens", tokens},
                      {"nll", nll},
                      {"n_scored", n_scored},
                      {"perplexity", n_scored > 0 ? Json(perplexity) : Json(nullptr)}});
  }

  ModelOptions model_;
  TextOptions text_;
  OutputOptions output_;
  Setting<std::int64_t> top_{5};
  bool raw_ = false;
  bool special_ = false;
};

}  // namespace

std::unique_ptr<Command> make_score() { return std::make_unique<Score>(); }

}  // namespace qwen::cli
