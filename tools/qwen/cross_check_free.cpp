#include "tools/qwen/cross_check_free.h"

#include <cstdio>

#include "tools/qwen/divergence_text.h"
#include "tools/qwen/format.h"

namespace qwen::cli {
namespace {

std::string two_digits(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2g", v);
  return text;
}

std::string flips(const crosscheck::FreeResult& r) {
  if (r.n_flips == 0) return "";
  const std::int64_t open = r.n_flips - r.n_flips_explained;
  return " (" + thousands(r.n_flips) + " flipped, " +
         (open == 0 ? "all near ties" : thousands(open) + " of them unexplained") + ")";
}

}  // namespace

Json logits_json(const crosscheck::FreeResult& r) {
  return {{"kl_mean", number(r.kl_mean)},
          {"kl_max", number(r.kl_max)},
          {"top1_agree", r.top1_agree},
          {"flips", r.n_flips},
          {"flips_explained", r.n_flips_explained}};
}

Json drift_json(const crosscheck::FreeResult& r) {
  Json all = Json::array();
  for (const crosscheck::Drift& d : r.drift) {
    all.push_back({{"seq", d.seq},
                   {"token", d.token},
                   {"layer", d.layer < 0 ? Json(nullptr) : Json(d.layer)},
                   {"path", number(d.path)},
                   {"twins", number(d.twins)}});
  }
  return all;
}

std::string free_text(const crosscheck::FreeResult& r) {
  const crosscheck::Drift& worst = r.worst_drift;
  return std::string(r.agrees ? "     free:" : "FAIL free:") + " KL " + two_digits(r.kl_mean) +
         " mean, " + two_digits(r.kl_max) + " max; top-1 " + fixed(100 * r.top1_agree, 1) + " %" +
         flips(r) + "; drift " + two_digits(worst.ratio()) + "x its twins', " +
         two_digits(crosscheck::kDriftFactor) + " allowed (token " + std::to_string(worst.token) +
         (worst.layer < 0 ? " logits" : " layer " + std::to_string(worst.layer)) + ")\n" +
         (r.agrees ? "" : "     cause: unknown   (seen only in what the ops do together)\n");
}

}  // namespace qwen::cli
