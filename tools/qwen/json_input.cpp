#include "tools/qwen/json_input.h"

#include <vector>

#include "tools/qwen/usage_error.h"

namespace qwen::cli {
namespace {

using Json = nlohmann::ordered_json;

Json parse(const std::string& text, const std::string& source) {
  try {
    return Json::parse(text, json_bounds(source));
  } catch (const Json::parse_error& error) {
    usage_error(source + " is no valid JSON: byte " + std::to_string(error.byte));
  } catch (const Json::out_of_range&) {  // 1e999; the library says nothing of its place
    usage_error(source + " has a number that is too large for a 64-bit float");
  }
}

}  // namespace

Json::parser_callback_t json_bounds(const std::string& source, int max_depth) {
  // Keys so far of each open object.
  return [source, max_depth, n_keys = std::vector<std::size_t>()](
             int depth, Json::parse_event_t event, const Json&) mutable {
    if (depth > max_depth) {
      usage_error(source + ": JSON deeper than " + std::to_string(max_depth) + " levels");
    }
    if (event == Json::parse_event_t::object_start) n_keys.push_back(0);
    if (event == Json::parse_event_t::object_end) n_keys.pop_back();
    if (event == Json::parse_event_t::key && ++n_keys.back() > kMaxJsonKeys) {
      usage_error(source + ": a JSON object of more than " + std::to_string(kMaxJsonKeys) +
                  " keys");
    }
    return true;
  };
}

Json parse_json_list(const std::string& text, const std::string& source, const std::string& what) {
  Json json = parse(text, source);
  if (!json.is_array()) {
    usage_error(source + ": expected a list of " + what + ", got " + json.type_name());
  }
  return json;
}

Json parse_json_object(const std::string& text, const std::string& source) {
  Json json = parse(text, source);
  if (!json.is_object()) {
    usage_error(source + ": expected a JSON object, got " + json.type_name());
  }
  return json;
}

}  // namespace qwen::cli
