#include "tools/qwen/divergence_text.h"

#include <cmath>
#include <cstdio>

#include "tools/qwen/format.h"

namespace qwen::cli {
namespace {

using crosscheck::Divergence;

Json cause_json(const crosscheck::Cause& cause) {
  return {{"name", cause.name}, {"evidence", cause.evidence}};
}

std::string element_text(const Divergence& d) {
  std::string line = "seq " + std::to_string(d.seq);
  const bool one_per_head = d.output == "lse";
  const std::size_t n = d.coords.size();
  if (n == 2 || (one_per_head && n > 0)) line += " head " + std::to_string(d.coords[0]);
  if (n > 0 && !one_per_head) line += " d " + std::to_string(d.coords.back());
  return line + "   got " + scientific(d.element.got) + "  expected " +
         scientific(d.element.expected);
}

}  // namespace

std::string scientific(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", v);
  return text;
}

std::string value_name(const Tap& tap, std::string_view output) {
  return output == "lse" ? "attn_lse" : std::string(tap.name);
}

std::string place(const Tap& tap) {
  return tap.layer < 0 ? std::string() : " layer " + std::to_string(tap.layer);
}

Json number(double v) { return std::isfinite(v) ? Json(v) : Json(nullptr); }

Json divergence_json(const Divergence& d) {
  return {{"token", d.token},
          {"layer", d.tap.layer < 0 ? Json(nullptr) : Json(d.tap.layer)},
          {"op", value_name(d.tap, d.output)},
          {"seq", d.seq},
          {"coords", d.coords},
          {"got", number(d.element.got)},
          {"expected", number(d.element.expected)},
          {"error", number(d.element.error())},
          {"tolerance", d.element.tolerance},
          {"failed", d.n_failed},
          {"of", d.n_elements},
          {"pattern", d.pattern},
          {"cause", cause_json(d.cause)}};
}

std::string divergence_text(const Divergence& d) {
  return "FAIL token " + std::to_string(d.token) + place(d.tap) + " op " +
         value_name(d.tap, d.output) + "  " + element_text(d) + "\n     |err| " +
         scientific(d.element.error()) + "  tolerance " + scientific(d.element.tolerance) + " (" +
         scientific(d.element.ratio()) + "x)   " + thousands(d.n_failed) + "/" +
         thousands(d.n_elements) + " elements" + (d.pattern.empty() ? "" : ", " + d.pattern) +
         "\n     cause: " + d.cause.name + "   (" + d.cause.evidence + ")\n";
}

}  // namespace qwen::cli
