// JSON that somebody gives to a command: messages, tools, folders of other programs.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace qwen::cli {

// More than any message or tool has. An object looks through all its keys for each that is added.
inline constexpr std::size_t kMaxJsonKeys = 4096;
// Deeper than any message, shallow enough for every stack.
inline constexpr int kMaxJsonDepth = 64;

// `text` as JSON, in time linear in its length. Throws Error (Exit::kUsage) naming `source` for an
// object of more than kMaxJsonKeys keys, repeated ones included, and for more than `max_depth`
// lists and objects inside each other; Json::exception for text that is no JSON.
nlohmann::ordered_json parse_bounded_json(const std::string& text, const std::string& source,
                                          int max_depth = kMaxJsonDepth);

// The same as a list. Throws Error (Exit::kUsage) also for text that is no JSON or no list; the
// message says what the list is of.
nlohmann::ordered_json parse_json_list(const std::string& text, const std::string& source,
                                       const std::string& what);

// The same for an object.
nlohmann::ordered_json parse_json_object(const std::string& text, const std::string& source);

}  // namespace qwen::cli
