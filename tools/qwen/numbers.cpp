#include "tools/qwen/numbers.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <string_view>

#include "tools/qwen/format.h"

namespace qwen::cli {
namespace {

// Bounds from here on are those of the type and tell the user nothing.
constexpr double kUnbounded = std::numeric_limits<float>::max();

// True if the whole text is one number that fits its type.
template <class T>
bool read(std::string_view text, T& value) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() && !text.empty();
}

std::string bounds(IntRange range) {
  if (range.high == std::numeric_limits<std::int64_t>::max()) {
    return "of at least " + thousands(range.low);
  }
  return "from " + thousands(range.low) + " to " + thousands(range.high);
}

std::string bounds(RealRange range) {
  const std::string low = (range.low_open ? "above " : "of at least ") + short_number(range.low);
  return range.high < kUnbounded ? low + " and at most " + short_number(range.high) : low;
}

}  // namespace

bool contains(RealRange range, double value) {
  // The value is used as a float, in which a tiny number is zero.
  return value <= range.high &&
         (range.low_open ? static_cast<float>(value) > range.low : value >= range.low);
}

std::int64_t parse_integer(const std::string& name, const std::string& text, IntRange range) {
  std::int64_t value = 0;
  if (!read(text, value) || value < range.low || value > range.high) {
    usage_error(name + " is '" + text + "', expected a whole number " + bounds(range));
  }
  return value;
}

double parse_real(const std::string& name, const std::string& text, RealRange range) {
  double value = 0;
  if (!read(text, value) || !contains(range, value))
    usage_error(name + " is '" + text + "', expected a number " + bounds(range));
  return value;
}

std::vector<std::int64_t> parse_integers(const std::string& name, const std::string& text,
                                         IntRange range) {
  std::vector<std::int64_t> values;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    std::string item = text.substr(begin, end - begin);
    // People and JSON put spaces after commas.
    item.erase(0, std::min(item.find_first_not_of(' '), item.size()));
    item.erase(item.find_last_not_of(' ') + 1);
    values.push_back(parse_integer(name, item, range));
    begin = end + 1;
  }
  return values;
}

}  // namespace qwen::cli
