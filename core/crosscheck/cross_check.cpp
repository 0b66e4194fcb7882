#include "core/crosscheck/cross_check.h"

#include <algorithm>

#include "core/sampler.h"

namespace qwen::crosscheck {
namespace {

class Run {
 public:
  Run(const Sides& sides, const Models& models, const CrossCheckOptions& options)
      : sides_(sides),
        options_(options),
        path_(models.path, sides.path, session_options()),
        oracle_(models.oracle, sides.oracle, session_options()),
        shadow_(sides, options.keep) {}

  CrossCheckResult run() {
    CrossCheckResult result;
    std::int64_t total = 0;
    for (const auto& text : options_.texts) {
      total += static_cast<std::int64_t>(text.size()) + options_.n_decode;
    }
    std::vector<std::vector<std::int32_t>> texts = options_.texts;
    std::vector<std::size_t> done(texts.size());
    while (true) {
      const std::vector<TokenInput> tokens = next_step(texts, done);
      if (tokens.empty()) break;
      if (options_.progress) options_.progress(result.n_tokens, total);
      if (result.n_tokens == 0 && !attested(tokens, result.attestation)) break;
      step(tokens, texts);
      result.n_tokens += static_cast<std::int64_t>(tokens.size());
    }
    result.shadow = shadow_.result();
    result.attestation.wrong.clear();  // it points into the oracle's model
    if (!result.attestation.findings.empty() || !result.shadow.divergences.empty()) {
      result.agreement = Agreement::kDiverge;
    } else if (result.shadow.n_unsound > 0 || result.shadow.n_checks == 0) {
      result.agreement = Agreement::kCannotTell;
    }
    return result;
  }

 private:
  SessionOptions session_options() const {
    std::size_t longest = 0;
    for (const auto& text : options_.texts) longest = std::max(longest, text.size());
    const auto n_seqs = static_cast<std::int64_t>(options_.texts.size());
    return {.ctx = static_cast<std::int64_t>(longest) + options_.n_decode,
            .n_seqs = n_seqs,
            .max_step_tokens = n_seqs * options_.chunk,
            .max_step_rows = n_seqs,
            .kv_dtype = options_.kv_dtype,
            .n_layers = options_.n_layers,
            .poison = true};
  }

  // The next tokens of every sequence: a chunk of its text, or the one after it.
  std::vector<TokenInput> next_step(const std::vector<std::vector<std::int32_t>>& texts,
                                    std::vector<std::size_t>& done) const {
    std::vector<TokenInput> tokens;
    for (std::size_t s = 0; s < texts.size(); ++s) {
      const std::size_t end =
          std::min(texts[s].size(), done[s] + static_cast<std::size_t>(options_.chunk));
      for (; done[s] < end; ++done[s]) {
        tokens.push_back({texts[s][done[s]], static_cast<std::int32_t>(done[s]),
                          static_cast<std::int32_t>(s), done[s] + 1 == texts[s].size()});
      }
    }
    return tokens;
  }

  // Before the first step. False if the path's ops cannot be compared at all.
  bool attested(std::vector<TokenInput> tokens, Attestation& attestation) {
    tokens.back().wants_logits = true;  // with the last norm and the head
    const Plan path = recorded(sides_.path, path_, tokens);
    attestation = attest(sides_, path, recorded(sides_.oracle, oracle_, tokens));
    shadow_.adopt(attestation.wrong);
    return std::all_of(attestation.findings.begin(), attestation.findings.end(),
                       [](const Finding& f) { return f.is_constant || f.is_number; });
  }

  void step(const std::vector<TokenInput>& tokens, std::vector<std::vector<std::int32_t>>& texts) {
    const Plan plan = recorded(sides_.oracle, oracle_, tokens);
    shadow_.begin(plan, tokens);
    Tensor logits;
    {
      const ObservingScope observing(sides_.path, &shadow_);
      logits = path_.step(tokens);
    }
    shadow_.end();
    const std::vector<std::int8_t> unseen(logits.cols());
    std::int64_t row = 0;
    for (const TokenInput& token : tokens) {
      if (!token.wants_logits) continue;
      std::vector<float> values(logits.cols());
      sides_.path.read(values.data(), logits.slice(row, row + 1));
      ++row;
      auto& text = texts[static_cast<std::size_t>(token.seq)];
      const std::size_t given = options_.texts[static_cast<std::size_t>(token.seq)].size();
      if (text.size() < given + static_cast<std::size_t>(options_.n_decode)) {
        text.push_back(sample(values, unseen, {}, 0));  // greedy
      }
    }
  }

  // The step's ops, none of them run; its ids, positions and pages are in place.
  static Plan recorded(Backend& backend, Session& session, const std::vector<TokenInput>& tokens) {
    Plan plan;
    const RecordingScope recording(backend, plan);
    session.step(tokens);
    return plan;
  }

  const Sides& sides_;
  const CrossCheckOptions& options_;
  Session path_;
  Session oracle_;
  Shadow shadow_;
};

}  // namespace

CrossCheckResult cross_check(const Sides& sides, const Models& models,
                             const CrossCheckOptions& options) {
  return Run(sides, models, options).run();
}

}  // namespace qwen::crosscheck
