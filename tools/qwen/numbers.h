// Numbers out of arguments, with their limits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/qwen/parser.h"

namespace qwen::cli {

// Also false for what is not finite, or is zero as a float while zero is not allowed.
bool contains(RealRange range, double value);

// All throw Error (Exit::kUsage) naming the option and what was expected.
std::int64_t parse_integer(const std::string& name, const std::string& text, IntRange range);
double parse_real(const std::string& name, const std::string& text, RealRange range);
std::vector<std::int64_t> parse_integers(const std::string& name, const std::string& text,
                                         IntRange range);

}  // namespace qwen::cli
