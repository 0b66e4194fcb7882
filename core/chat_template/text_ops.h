// Python's string operations on Text: positions and lengths are counted in code points, white space
// is Unicode's, provenance is kept. The caller charges for the result.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/chat_template/text.h"

namespace qwen::jinja {

// The code point at `pos`, which moves behind it. A byte that is not valid UTF-8 counts as one code
// point of its own value, so that no input can stop or derail a loop.
char32_t next_code_point(std::string_view bytes, std::size_t& pos);
// Moves `pos` (> 0) to the start of the code point before it.
void step_back(std::string_view bytes, std::size_t& pos);
bool is_valid_utf8(std::string_view bytes);
void append_utf8(std::string& out, char32_t code_point);

std::size_t count_code_points(std::string_view bytes);
// Byte position of each code point, and the size at the end.
std::vector<std::size_t> code_point_offsets(std::string_view bytes);
// str.isspace()
bool is_space(char32_t code_point);

// Position of `needle` at or after `from`, or npos. Linear in the worst case, unlike
// std::string_view::find: a template chooses both strings.
std::size_t find_bytes(std::string_view bytes, std::string_view needle, std::size_t from = 0);

enum class Side { kLeft, kRight, kBoth };
// str.strip(chars); without `chars`, white space.
Text strip(const Text& text, Side side, std::optional<std::string_view> chars = {});
// str.split(sep, max): sep is not empty; max < 0: no bound.
std::vector<Text> split(const Text& text, std::string_view sep, long max);
std::vector<Text> split_right(const Text& text, std::string_view sep, long max);
// str.split(None, max)
std::vector<Text> split_space(const Text& text, long max);
// str.replace(from, to, max)
Text replace(const Text& text, std::string_view from, const Text& to, long max);
std::size_t count_occurrences(std::string_view bytes, std::string_view needle);

enum class Case {
  kUpper,
  kLower,
  kTitle,       // str.title()
  kTitleWords,  // Jinja's filter `title`
  kCapital,
};
// Nothing for a letter whose case this interpreter does not know (case_map.cpp).
std::optional<Text> map_case(const Text& text, Case to);

}  // namespace qwen::jinja
