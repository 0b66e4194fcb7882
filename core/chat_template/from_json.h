// JSON documents as template values.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "core/chat_template/value.h"

namespace qwen::jinja {

// How much input a rendering was given; its allowances grow with it.
struct InputSize {
  std::uint64_t bytes = 0;   // of all strings and keys
  std::uint64_t values = 0;  // of the documents' tree
};

// Adds to `size`. All strings count as input, not as template text. Throws Error (kUsage)
// input_too_deep or invalid_utf8.
Value from_json(const nlohmann::ordered_json& json, InputSize& size);

}  // namespace qwen::jinja
