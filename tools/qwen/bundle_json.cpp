#include "tools/qwen/bundle_json.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "core/error.h"

namespace qwen::cli {

using crosscheck::Divergence;

Json fields_json(const Op& op) {
  if (const auto* norm = std::get_if<RmsNorm>(&op)) return {{"eps", norm->eps}};
  if (const auto* gemm = std::get_if<Gemm>(&op)) return {{"is_head", gemm->is_head}};
  if (const auto* a = std::get_if<Attention>(&op)) {
    return {{"scale", a->scale}, {"decode", a->decode}};
  }
  return Json::object();
}

void read_fields(const Json& fields, Op& op) {
  if (auto* norm = std::get_if<RmsNorm>(&op)) norm->eps = fields.at("eps");
  // Bundles of earlier versions have neither this nor the last two of a contract.
  if (auto* gemm = std::get_if<Gemm>(&op)) gemm->is_head = fields.value("is_head", false);
  if (auto* a = std::get_if<Attention>(&op)) {
    a->scale = fields.at("scale");
    a->decode = fields.at("decode");
  }
}

namespace {

template <std::size_t I = 0>
Op op_of_kind(const std::string& wanted) {
  if constexpr (I == std::variant_size_v<Op>) {
    throw Error({.message = "the op '" + wanted + "' is not known"});
  } else {
    Op op(std::in_place_index<I>);
    return name(op) == wanted ? op : op_of_kind<I + 1>(wanted);
  }
}

}  // namespace

Op op_named(const std::string& wanted) { return op_of_kind(wanted); }

Json contract_json(const Contract& c) {
  return {{"sum_depth", c.sum_depth},
          {"value_sum_depth", c.value_sum_depth},
          {"truncates", c.truncates},
          {"sum_block", c.sum_block},
          {"separate_minima", c.separate_minima},
          {"input_unit", c.input_unit},
          {"weight_unit", c.weight_unit},
          {"probability_unit", c.probability_unit},
          {"input_step", c.input_step},
          {"probability_step", c.probability_step},
          {"int8_fine_from", c.int8_fine_from}};
}

Contract read_contract(const Json& json) {
  return {.sum_depth = json.at("sum_depth"),
          .value_sum_depth = json.at("value_sum_depth"),
          .truncates = json.at("truncates"),
          .sum_block = json.at("sum_block"),
          .input_unit = json.at("input_unit"),
          .weight_unit = json.at("weight_unit"),
          .probability_unit = json.at("probability_unit"),
          .input_step = json.at("input_step"),
          .probability_step = json.at("probability_step"),
          .separate_minima = json.value("separate_minima", false),
          .int8_fine_from = json.value("int8_fine_from", 0.0)};
}

Json kept_divergence_json(const Divergence& d) {
  return {{"output", std::string(d.output)},
          {"token", d.token},
          {"seq", d.seq},
          {"coords", d.coords},
          {"failed", d.n_failed},
          {"of", d.n_elements},
          {"pattern", d.pattern},
          {"cause", {{"name", d.cause.name}, {"evidence", d.cause.evidence}}}};
}

std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c >= 0 && c < ' '; }, '?');
  return text;
}

Divergence read_divergence(const Json& json) {
  const Json& cause = json.at("cause");
  return {.tap = {},
          .output = {},
          .token = json.at("token"),
          .seq = json.at("seq"),
          .coords = json.at("coords"),
          .element = {},
          .n_failed = json.at("failed"),
          .n_elements = json.at("of"),
          .pattern = printable(json.at("pattern")),
          .cause = {printable(cause.at("name")), printable(cause.at("evidence"))}};
}

}  // namespace qwen::cli
