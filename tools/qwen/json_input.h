// JSON that somebody gives to a command: messages, tools, folders of other programs.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace qwen::cli {

// More than any message or tool has. An object looks through all its keys for each that is added.
inline constexpr std::size_t kMaxJsonKeys = 4096;
// Deeper than any message, shallow enough for every stack.
inline constexpr int kMaxJsonDepth = 64;

// For nlohmann's parse(): throws Error (Exit::kUsage) naming `source` for an object of more than
// kMaxJsonKeys keys, repeated ones included, and for nesting deeper than `max_depth`. Of one use.
nlohmann::ordered_json::parser_callback_t json_bounds(const std::string& source,
                                                      int max_depth = kMaxJsonDepth);

// `text` as a JSON list. Throws Error (Exit::kUsage) naming `source`, and what the list is of, for
// text that is no JSON, is beyond json_bounds(), or is no list.
nlohmann::ordered_json parse_json_list(const std::string& text, const std::string& source,
                                       const std::string& what);

// The same for an object.
nlohmann::ordered_json parse_json_object(const std::string& text, const std::string& source);

}  // namespace qwen::cli
