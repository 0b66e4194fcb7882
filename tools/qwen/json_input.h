// JSON that somebody gives to a command: messages, tools.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace qwen::cli {

// `text` as a JSON list. Throws Error (Exit::kUsage) naming `source`, and what the list is of, for
// text that is no JSON, is nested deeper than 64 levels, or is no list.
nlohmann::ordered_json parse_json_list(const std::string& text, const std::string& source,
                                       const std::string& what);

// The same for a JSON object.
nlohmann::ordered_json parse_json_object(const std::string& text, const std::string& source);

}  // namespace qwen::cli
