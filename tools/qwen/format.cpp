#include "tools/qwen/format.h"

#include <array>
#include <cmath>
#include <cstdio>

namespace qwen::cli {
namespace {

std::string print(const char* format, auto... values) {
  std::array<char, 400> text;  // the largest double in fixed point has 309 digits
  const int n = std::snprintf(text.data(), text.size(), format, values...);
  return std::string(text.data(), static_cast<std::size_t>(n));
}

}  // namespace

std::string thousands(std::int64_t n) {
  std::string digits = std::to_string(n);
  const std::size_t first = n < 0 ? 1 : 0;
  for (std::size_t i = digits.size(); i > first + 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

std::string fixed(double value, int digits) { return print("%.*f", digits, value); }

std::string rate(double per_second) {
  if (!std::isfinite(per_second)) return "-";
  if (per_second < 100) return fixed(per_second, 1);
  return thousands(std::llround(per_second));
}

std::string bytes_text(std::uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= std::uint64_t{1} << 30) return fixed(value / (1 << 30), 2) + " GiB";
  if (bytes >= std::uint64_t{1} << 20) return fixed(value / (1 << 20), 0) + " MiB";
  if (bytes >= std::uint64_t{1} << 10) return fixed(value / (1 << 10), 0) + " KiB";
  return std::to_string(bytes) + " bytes";
}

std::string parameters_text(std::int64_t n) {
  if (n >= 1'000'000'000) return fixed(static_cast<double>(n) / 1e9, 2) + " B";
  if (n >= 1'000'000) return fixed(static_cast<double>(n) / 1e6, 0) + " M";
  return thousands(n);
}

std::string short_number(double value) { return print("%.6g", value); }

}  // namespace qwen::cli
