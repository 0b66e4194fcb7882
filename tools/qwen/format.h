// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace qwen::cli {

// 9120 -> "9,120"
std::string thousands(std::int64_t n);
// Fixed point with that many digits: fixed(0.914, 1) -> "0.9"
std::string fixed(double value, int digits);
// Tokens per second: thousands from 100 on, one digit below.
std::string rate(double per_second);
// "1.53 GiB", "896 MiB", "12 KiB", "7 bytes"
std::string bytes_text(std::uint64_t bytes);
// 1543714304 -> "1.54 B", 494032768 -> "494 M"
std::string parameters_text(std::int64_t n);
// Up to six significant digits, no trailing zeros: 0.7 -> "0.7"
std::string short_number(double value);

}  // namespace qwen::cli
