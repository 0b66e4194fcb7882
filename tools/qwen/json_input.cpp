#include "tools/qwen/json_input.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace qwen::cli {
namespace {

using Json = nlohmann::ordered_json;

// Deeper than any message, shallow enough for every stack.
constexpr int kMaxDepth = 64;

[[noreturn]] void refuse(std::string message) {
  throw Error({.exit = Exit::kUsage, .code = "usage", .message = std::move(message)});
}

Json parse(const std::string& text, const std::string& source) {
  const auto bounded = [&](int depth, Json::parse_event_t, Json&) {
    if (depth > kMaxDepth) {
      refuse(source + ": JSON deeper than " + std::to_string(kMaxDepth) + " levels");
    }
    return true;
  };
  try {
    return Json::parse(text, bounded);
  } catch (const Json::parse_error& error) {
    refuse(source + " is no valid JSON: byte " + std::to_string(error.byte));
  } catch (const Json::out_of_range&) {  // 1e999; the library says nothing of its place
    refuse(source + " has a number that is too large for a 64-bit float");
  }
}

}  // namespace

Json parse_json_list(const std::string& text, const std::string& source, const std::string& what) {
  Json json = parse(text, source);
  if (!json.is_array()) {
    refuse(source + ": expected a list of " + what + ", got " + json.type_name());
  }
  return json;
}

Json parse_json_object(const std::string& text, const std::string& source) {
  Json json = parse(text, source);
  if (!json.is_object()) refuse(source + ": expected a JSON object, got " + json.type_name());
  return json;
}

}  // namespace qwen::cli
