#include "core/crosscheck/free.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <utility>

#include "core/crosscheck/cross_check.h"
#include "core/crosscheck/logits.h"
#include "core/crosscheck/twins.h"

namespace qwen::crosscheck {
namespace {

constexpr std::int64_t kTwins = 16;
constexpr std::uint64_t kSeed = 20190101;

// Not-a-number counts as the largest.
double larger(double a, double b) { return a >= b || std::isnan(a) ? a : b; }

// Rows of numbers, (n_rows, n_cols).
struct Rows {
  std::vector<float> values;
  std::size_t n_cols = 1;

  std::span<const float> operator[](std::size_t row) const {
    return std::span(values).subspan(row * n_cols, n_cols);
  }
};

Rows read_rows(Backend& backend, const Tensor& t) {
  Rows rows{std::vector<float>(static_cast<std::size_t>(t.size())),
            static_cast<std::size_t>(t.cols())};
  if (t.size() > 0) backend.read(rows.values.data(), t);
  return rows;
}

// Keeps the residual stream after each layer. Tells `inner`, if any, of the ops first.
class ResidualReader : public Observer {
 public:
  explicit ResidualReader(Backend& backend, Observer* inner = nullptr)
      : backend_(backend), inner_(inner) {}

  void before(const Op& op, const Tap& tap) override {
    if (inner_ != nullptr) inner_->before(op, tap);
  }
  void after(const Op& op, const Tap& tap) override {
    if (inner_ != nullptr) inner_->after(op, tap);
    if (tap.name == "resid2") layers_.push_back(read_rows(backend_, std::get<Add>(op).x));
  }

  // Of the step that was run.
  std::vector<Rows> take() { return std::exchange(layers_, {}); }

 private:
  Backend& backend_;
  Observer* inner_;
  std::vector<Rows> layers_;
};

// A model in a session.
class Side {
 public:
  Side(const Model& model, Backend& backend, const SessionOptions& options,
       Observer* inner = nullptr)
      : session_(model, backend, options), reader_(backend, inner) {}

  // Op by op. Leaves `layers`.
  Tensor observe(std::span<const TokenInput> tokens) {
    const ObservingScope observing(session_.backend(), &reader_);
    const Tensor step_logits = session_.step(tokens);
    layers = reader_.take();
    return step_logits;
  }
  Session& session() { return session_; }

  std::vector<Rows> layers;  // the residual stream after each

 private:
  Session session_;
  ResidualReader reader_;
};

// A token at which the choices differ.
struct Flip {
  std::size_t drift;  // of its logits: index
  double margin;      // relative to the RMS of the oracle's logits, as the drift
};

class FreeRun {
 public:
  FreeRun(const Sides& sides, const Models& models, const CrossCheckOptions& options,
          const std::vector<std::vector<std::int32_t>>& texts)
      : sides_(sides),
        texts_(texts),
        steps_(options.texts, options.n_decode, options.chunk),
        progress_(options.progress),
        n_seqs_(static_cast<std::int32_t>(options.texts.size())),
        rounds_cache_(options.kv_dtype != DType::kF32),
        noise_(1 + kTwins, kSeed),
        path_(models.path, sides.path, session_options(options, 1)),
        oracle_(models.oracle, sides.oracle, session_options(options, 1)),
        twins_(models.oracle, sides.host, session_options(options, 1 + kTwins), &noise_) {}

  FreeResult run() {
    for (auto tokens = steps_.next(); !tokens.empty(); tokens = steps_.next()) {
      if (progress_) progress_(tokens, result_.n_tokens, steps_.n_tokens());
      step(std::move(tokens));
    }
    return finished();
  }

 private:
  static SessionOptions session_options(const CrossCheckOptions& options, std::int64_t n_groups) {
    SessionOptions o = crosscheck::session_options(options);
    o.n_seqs *= n_groups;
    o.max_step_tokens *= n_groups;
    o.max_step_rows = o.max_step_tokens;
    return o;
  }

  void step(std::vector<TokenInput> tokens) {
    std::vector<bool> is_last;  // of its sequence in this step
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      is_last.push_back(i + 1 == tokens.size() || tokens[i + 1].seq != tokens[i].seq);
      tokens[i].wants_logits = true;
    }
    noise_.begin(path_contracts(tokens));
    path_.observe(tokens);
    const Rows path = read_rows(sides_.path, path_.session().step(tokens));
    const Rows oracle = read_rows(sides_.oracle, oracle_.observe(tokens));

    std::vector<LogitComparison> logits;
    std::vector<std::size_t> compared;  // tokens whose logits the twins have
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      logits.push_back(compare_logits(oracle[i], path[i]));
      count(logits.back());
      if (is_last[i] || logits[i].flipped()) compared.push_back(i);
      if (is_last[i]) go_on(tokens[i], logits[i].path_top);
    }
    const Rows twins = run_twins(tokens, compared);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      for (std::size_t l = 0; l < path_.layers.size(); ++l) {
        const std::span<const float> exact = oracle_.layers[l][i];
        drift(tokens[i], static_cast<int>(l), rms_difference(path_.layers[l][i], exact),
              largest(twins_.layers[l], i, tokens.size()), rms(exact));
      }
    }
    for (std::size_t k = 0; k < compared.size(); ++k) {
      const std::size_t i = compared[k];
      const double size = rms(oracle[i]);
      drift(tokens[i], -1, logits[i].drift, largest(twins, k, compared.size()), size);
      if (!logits[i].flipped()) continue;
      flips_.push_back({result_.drift.size() - 1, logits[i].margin / size});
    }
  }

  // How the path runs the ops of the step, which it records and does not run.
  std::vector<Contract> path_contracts(const std::vector<TokenInput>& tokens) {
    Plan plan;
    {
      const RecordingScope recording(sides_.path, plan);
      path_.session().step(tokens);
    }
    std::vector<Contract> contracts;
    for (const Node& node : plan) contracts.push_back(sides_.path.contract(node.op));
    return contracts;
  }

  // All groups; the logits of `compared`.
  Rows run_twins(const std::vector<TokenInput>& tokens, const std::vector<std::size_t>& compared) {
    std::vector<TokenInput> all;
    for (std::int32_t group = 0; group <= kTwins; ++group) {
      const auto begin = static_cast<std::ptrdiff_t>(all.size());
      all.insert(all.end(), tokens.begin(), tokens.end());
      for (auto t = all.begin() + begin; t != all.end(); ++t) {
        t->seq += group * n_seqs_;
        t->wants_logits = false;
      }
      for (const std::size_t i : compared)
        all[static_cast<std::size_t>(begin) + i].wants_logits = true;
    }
    return read_rows(twins_.session().backend(), twins_.observe(all));
  }

  // Of the twins' distances to the exact group; each group has n rows.
  static double largest(const Rows& rows, std::size_t row, std::size_t n) {
    double most = 0;
    for (std::size_t group = 1; group <= kTwins; ++group) {
      most = larger(most, rms_difference(rows[group * n + row], rows[row]));
    }
    return most;
  }

  void count(const LogitComparison& c) {
    ++result_.n_tokens;
    if (c.flipped()) ++result_.n_flips;
    result_.kl_mean += c.kl;
    result_.kl_max = larger(result_.kl_max, c.kl);
  }

  void drift(const TokenInput& token, int layer, double path, double twins, double size) {
    result_.drift.push_back({token.seq, token.pos, layer, path / size, twins / size});
    double& most = twins_most_[layer];
    most = larger(most, twins / size);
  }

  // What follows a token that ends its text: the given one, or what the path chose.
  void go_on(const TokenInput& token, std::int32_t chosen) {
    const auto next = static_cast<std::size_t>(token.pos) + 1;
    const auto s = static_cast<std::size_t>(token.seq);
    if (steps_.texts()[s].size() != next) return;
    steps_.append(token.seq, next < texts_[s].size() ? texts_[s][next] : chosen);
  }

  // Where the cache rounds, drift comes in jumps: a value that is near a tie falls to one side on
  // the path and, seen once in some thousand tokens, to the other in all twins. Jumps of other
  // tokens then say how large they are.
  void pool_twins() {
    for (Drift& d : result_.drift) d.twins = twins_most_[d.layer];
  }

  FreeResult finished() {
    const auto n = static_cast<double>(result_.n_tokens);
    result_.kl_mean /= n;
    result_.top1_agree = 1 - static_cast<double>(result_.n_flips) / n;
    if (rounds_cache_) pool_twins();
    for (const Flip& flip : flips_) {
      const double bound = kDriftFactor * result_.drift[flip.drift].twins;
      if (explains_flip(flip.margin, bound)) ++result_.n_flips_explained;
    }
    for (const Drift& d : result_.drift) {
      const double worst = result_.worst_drift.ratio();
      if (!std::isnan(worst) && !(d.ratio() <= worst)) result_.worst_drift = d;
    }
    result_.agrees = std::isfinite(result_.kl_mean) &&
                     result_.n_flips == result_.n_flips_explained &&
                     result_.worst_drift.ratio() <= kDriftFactor;
    return std::move(result_);
  }

  const Sides& sides_;
  const std::vector<std::vector<std::int32_t>>& texts_;
  Steps steps_;
  Progress progress_;
  std::int32_t n_seqs_;
  bool rounds_cache_;
  TwinNoise noise_;
  Side path_, oracle_, twins_;
  FreeResult result_;
  std::map<int, double> twins_most_;  // by layer: the largest of Drift::twins
  std::vector<Flip> flips_;
};

}  // namespace

double Drift::ratio() const { return path == 0 ? 0 : path / twins; }

FreeResult run_free(const Sides& sides, const Models& models, const CrossCheckOptions& options,
                    const std::vector<std::vector<std::int32_t>>& texts) {
  return FreeRun(sides, models, options, texts).run();
}

}  // namespace qwen::crosscheck
