// What the pre-split needs to know of a code point, from tables of our own: the reference
// tokenizer's are Unicode 16's, while those of PCRE2 depend on the version that is installed.
#pragma once

#include <cstdint>

namespace qwen {

enum class CharClass : std::uint8_t { kOther = 0, kLetter = 1, kNumber = 2, kSpace = 3 };

// A maximal run of code points of one class.
struct CharClassRun {
  char32_t first;
  char32_t last;
  CharClass char_class;
};

// The run that holds `code_point` (at most U+10FFFF).
CharClassRun char_class_run(char32_t code_point);

}  // namespace qwen
