#include "core/crosscheck/cross_check.h"

#include <algorithm>

#include "core/crosscheck/attest_file.h"
#include "core/crosscheck/forced.h"
#include "core/crosscheck/generation.h"

namespace qwen::crosscheck {
namespace {

class Run {
 public:
  Run(const Sides& sides, const Models& models, const CrossCheckOptions& options)
      : sides_(sides),
        file_(models.file),
        options_(options),
        steps_(options.texts, options.n_decode, options.chunk),
        path_(models.path, sides.path, session_options(options)),
        oracle_(models.oracle, sides.oracle, session_options(options)),
        shadow_(sides, options.detail, options.found, options.keep),
        forced_(sides, shadow_),
        fused_(sides) {
    for (std::size_t s = 1; s < options.texts.size(); ++s) {
      const auto seq = static_cast<std::int32_t>(s);
      SampleParams params{.temp = 0.7f, .top_k = 20, .top_p = 0.8f};
      if (s % 2 == 0) params = {.temp = 1.5f, .repeat_penalty = 3};
      params.seed_low = static_cast<std::uint32_t>(s);
      for (Session* session : {&path_, &oracle_}) {
        session->set_sampling(seq, params);
        session->set_seen(seq, options.texts[s]);
      }
    }
  }

  CrossCheckResult run() {
    CrossCheckResult result;
    while (true) {
      const std::vector<TokenInput> tokens = steps_.next();
      if (tokens.empty()) break;
      if (options_.progress) options_.progress(tokens, result.n_tokens, steps_.n_tokens());
      if (result.n_tokens == 0 && !attested(tokens, result.attestation)) break;
      step(tokens);
      result.n_tokens += static_cast<std::int64_t>(tokens.size());
      if (fused_divergences_.empty()) continue;
      if (options_.found && !shadow_.diverged()) options_.found(fused_divergences_.front());
      break;  // it may have spoilt the cache
    }
    result.texts = steps_.texts();
    result.shadow = shadow_.result();
    result.fused = fused_.result();
    // What its ops do wrong one by one, a fused run does wrong, too.
    auto& all = result.shadow.divergences;
    if (all.empty()) all = std::move(fused_divergences_);
    if (all.empty() && result.attestation.findings.empty() && checks_fused()) generate(result);
    result.attestation.wrong.clear();  // it points into the oracle's model
    if (!result.attestation.findings.empty() || !result.shadow.divergences.empty()) {
      result.agreement = Agreement::kDiverge;
    } else if (result.shadow.n_unsound > 0 || result.shadow.n_checks == 0) {
      result.agreement = Agreement::kCannotTell;
    }
    return result;
  }

 private:
  // Fused runs and programs. The forced mode has no values of the path's own for them.
  bool checks_fused() const { return options_.mode != Mode::kForced && options_.n_fused_steps > 0; }

  void generate(CrossCheckResult& result) {
    const GenerationCheck check = check_generation(path_, options_.texts, options_.n_decode);
    result.fused.n_queued = check.n_queued;
    if (!check.divergence) return;
    if (options_.found) options_.found(*check.divergence);
    result.shadow.divergences.push_back(*check.divergence);
  }

  void check_fused(const Plan& oracle, const std::vector<TokenInput>& tokens) {
    const Plan plan = recorded(sides_.path, path_, tokens);
    fused_divergences_ = fused_.step(plan, oracle, tokens);
    // The ledger goes on with the keys and values of the ops one by one.
    sides_.path.replay(plan);
    shadow_.forget_left();
  }

  static bool is_decode(const std::vector<TokenInput>& tokens) {
    return std::all_of(tokens.begin(), tokens.end(),
                       [](const TokenInput& t) { return t.wants_logits; });
  }

  // Before the first step. False if the path's ops cannot be compared at all.
  bool attested(std::vector<TokenInput> tokens, Attestation& attestation) {
    tokens.back().wants_logits = true;  // with the last norm and the head
    const Plan path = recorded(sides_.path, path_, tokens);
    const Plan own = recorded(sides_.oracle, oracle_, tokens);
    attestation = attest(sides_, path, own);
    for (Finding& f : attest_file(file_, own)) attestation.findings.push_back(std::move(f));
    shadow_.adopt(attestation.wrong);
    return std::all_of(attestation.findings.begin(), attestation.findings.end(),
                       [](const Finding& f) { return f.is_constant || f.is_number; });
  }

  void begin(const Plan& oracle_plan, const std::vector<TokenInput>& tokens) {
    shadow_.begin(oracle_plan, tokens);
    forced_.begin(oracle_plan);
  }
  Observer* observer() {
    if (options_.mode == Mode::kForced) return &forced_;
    return &shadow_;
  }

  void step(const std::vector<TokenInput>& tokens) {
    const Plan plan = recorded(sides_.oracle, oracle_, tokens);
    begin(plan, tokens);
    {
      const ObservingScope observing(sides_.path, observer());
      path_.step(tokens);
    }
    shadow_.end();
    if (checks_fused() && is_decode(tokens) && n_fused_++ < options_.n_fused_steps) {
      check_fused(plan, tokens);
    }
    std::vector<std::int32_t> seqs;
    for (const TokenInput& token : tokens) {
      if (token.wants_logits) seqs.push_back(token.seq);
    }
    if (seqs.empty()) return;
    const std::vector<std::int32_t> ids = choose(tokens, static_cast<std::int64_t>(seqs.size()));
    for (std::size_t row = 0; row < seqs.size(); ++row) steps_.append(seqs[row], ids[row]);
  }

  // The path's choice of a token from each row of logits. It is not taken from the session, which
  // refuses logits that are not finite.
  std::vector<std::int32_t> choose(const std::vector<TokenInput>& tokens, std::int64_t n_rows) {
    const auto sample = [](Session& session) { session.queue_sample(); };
    const Plan plan = recorded(sides_.path, path_, sample);
    begin(recorded(sides_.oracle, oracle_, sample), tokens);
    {
      const ObservingScope observing(sides_.path, observer());
      sides_.path.replay(plan);
    }
    shadow_.end();
    std::vector<std::int32_t> ids(static_cast<std::size_t>(n_rows));
    sides_.path.read(ids.data(), std::get<Sample>(plan.back().op).out);
    return ids;
  }

  // The ops of what `act` asks of a session, none of them run; their ids, positions and pages are
  // in place.
  template <class Act>
  static Plan recorded(Backend& backend, Session& session, const Act& act) {
    Plan plan;
    const RecordingScope recording(backend, plan);
    act(session);
    return plan;
  }
  static Plan recorded(Backend& backend, Session& session, const std::vector<TokenInput>& tokens) {
    return recorded(backend, session, [&](Session& s) { s.step(tokens); });
  }

  const Sides& sides_;
  const ModelFile& file_;
  const CrossCheckOptions& options_;
  Steps steps_;
  Session path_;
  Session oracle_;
  Shadow shadow_;
  Forced forced_;
  FusedCheck fused_;
  std::int64_t n_fused_ = 0;  // steps
  std::vector<Divergence> fused_divergences_;
};

}  // namespace

SessionOptions session_options(const CrossCheckOptions& options) {
  std::size_t longest = 0;
  for (const auto& text : options.texts) longest = std::max(longest, text.size());
  const auto n_seqs = static_cast<std::int64_t>(options.texts.size());
  return {.ctx = static_cast<std::int64_t>(longest) + options.n_decode,
          .n_seqs = n_seqs,
          .max_step_tokens = n_seqs * options.chunk,
          .max_step_rows = n_seqs,
          .kv_dtype = options.kv_dtype,
          .n_layers = options.n_layers,
          .poison = true};
}

CrossCheckResult cross_check(const Sides& sides, const Models& models,
                             const CrossCheckOptions& options) {
  CrossCheckResult result;
  if (options.mode == Mode::kFree) {
    result.texts = options.texts;
  } else {
    result = Run(sides, models, options).run();
  }
  const bool is_free = options.mode == Mode::kFree ||
                       (options.mode == Mode::kBoth && result.agreement != Agreement::kDiverge);
  if (!is_free) return result;
  result.free = run_free(sides, models, options, result.texts);
  result.n_tokens = result.free->n_tokens;
  if (!result.free->agrees) result.agreement = Agreement::kDiverge;
  return result;
}

}  // namespace qwen::crosscheck
