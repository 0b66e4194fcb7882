// Text from a file and numbers, made fit for a one-line message.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qwen {

// True for valid UTF-8 (no overlong forms, no surrogates) without control characters.
bool is_plain_text(std::string_view text);

// The text with every byte outside printable ASCII as \xHH, cut after 64 bytes: safe to print
// whatever the file holds.
std::string printable(std::string_view text);

// "1.54 GiB", "24 bytes".
std::string human_bytes(std::uint64_t bytes);

}  // namespace qwen
