// "Did you mean": the known name that is nearest to a mistyped one.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace qwen::cli {

// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`
// (optimal string alignment distance).
std::size_t edit_distance(std::string_view a, std::string_view b);

// The nearest of `known`, or empty if none is near enough to be what was meant.
std::string nearest(std::string_view typed, std::span<const std::string> known);

}  // namespace qwen::cli
