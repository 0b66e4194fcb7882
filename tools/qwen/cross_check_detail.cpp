#include "tools/qwen/cross_check_detail.h"

#include <algorithm>
#include <vector>

#include "tools/qwen/bundle_json.h"
#include "tools/qwen/divergence_text.h"

namespace qwen::cli {
namespace {

using crosscheck::Check;
using crosscheck::Judged;
using crosscheck::Unsound;
using crosscheck::Verdict;

Json layer_json(const Tap& tap) { return tap.layer < 0 ? Json(nullptr) : Json(tap.layer); }

const char* verdict_name(Verdict verdict) {
  if (verdict == Verdict::kFail) return "fail";
  return verdict == Verdict::kUnsound ? "unsound" : "pass";
}

// `first` is the first of the output's checks.
Json judged_json(const Judged& judged, const Check* first) {
  Json out{{"op", value_name(judged.tap, judged.output)},
           {"layer", layer_json(judged.tap)},
           {"output", judged.output},
           {"shape", judged.shape},
           {"contract", nullptr},
           {"verdict", verdict_name(judged.verdict)}};
  if (judged.contract) {
    std::int64_t per_row = 1;
    for (std::size_t k = 1; k < judged.shape.size(); ++k) per_row *= judged.shape[k];
    const Check& worst = first[judged.worst.index / per_row];
    out["contract"] = contract_json(*judged.contract);
    out["seq"] = worst.seq;
    out["token"] = worst.token;
    out["coords"] = judged.coords;
    out["error"] = number(judged.worst.error());
    out["tolerance"] = number(judged.worst.tolerance);
    out["ratio"] = number(judged.worst.ratio());
    out["d"] = number(judged.spread);
  }
  Json tokens = Json::array();
  for (std::size_t i = 0; i < judged.n_checks; ++i) {
    const Check& c = first[i];
    tokens.push_back({c.seq, c.token, number(c.ratio), c.same_bits});
  }
  out["tokens"] = std::move(tokens);
  return out;
}

bool wider(const Unsound& a, const Unsound& b) { return a.spread.median > b.spread.median; }

}  // namespace

const Unsound& widest(const crosscheck::ShadowResult& shadow) {
  const auto& all = shadow.unsound_outputs;
  return *std::min_element(all.begin(), all.end(), wider);
}

Json loose_outputs(const crosscheck::ShadowResult& shadow) {
  Json out = Json::array();
  for (const crosscheck::Nearness& n : shadow.loose) {
    out.push_back({{"op", value_name({n.tap}, n.output)}, {"ratio", n.ratio}});
  }
  return out;
}

Json unsound_outputs(const crosscheck::ShadowResult& shadow) {
  std::vector<Unsound> all = shadow.unsound_outputs;
  std::stable_sort(all.begin(), all.end(), wider);
  if (all.size() > kMaxUnsound) all.resize(kMaxUnsound);
  Json out = Json::array();
  for (const Unsound& u : all) {
    out.push_back({{"op", value_name(u.tap, u.output)},
                   {"layer", layer_json(u.tap)},
                   {"seq", u.seq},
                   {"token", u.token},
                   {"d", number(u.spread.median)},
                   {"beyond", u.spread.beyond},
                   {"outputs", u.n}});
  }
  return out;
}

Json checks_detail(const crosscheck::ShadowResult& shadow) {
  Json out = Json::array();
  const Check* first = shadow.checks.data();
  for (const Judged& judged : shadow.judged) {
    out.push_back(judged_json(judged, first));
    first += judged.n_checks;
  }
  return out;
}

}  // namespace qwen::cli
