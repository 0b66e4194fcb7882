#include "core/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <vector>

#include "core/error.h"
#include "core/tokenizer/utf8.h"

namespace qwen {
namespace {

struct Range {
  char32_t first;
  char32_t last;
};

// Ascending. NFC_Quick_Check=Yes and Canonical_Combining_Class=0 (or unassigned, inside blocks of
// symbols only), by Unicode's stability policy for good. A test checks each against utf8proc.
constexpr Range kInert[] = {
    {0x0000, 0x02FF},    // Latin
    {0x0400, 0x0482},    // Cyrillic
    {0x048A, 0x052F},    //
    {0x05D0, 0x05EA},    // Hebrew letters
    {0x0620, 0x064A},    // Arabic letters
    {0x1E00, 0x1EFF},    // Latin with marks: Vietnamese
    {0x2002, 0x2064},    // punctuation
    {0x2190, 0x2328},    // arrows, mathematics
    {0x2460, 0x2ADB},    // box drawing, symbols
    {0x3001, 0x3029},    // CJK punctuation
    {0x3041, 0x3096},    // Hiragana
    {0x309B, 0x30FF},    // Katakana
    {0x3220, 0xA48C},    // CJK ideographs, Yi
    {0xAC00, 0xD7A3},    // Hangul syllables
    {0xFF01, 0xFFBE},    // full-width forms
    {0x1F000, 0x1FAFF},  // emoji
    {0x20000, 0x2A6DF},  // CJK ideographs
};

constexpr auto kNfc = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);

int combining_class(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

// Sorts each run of combining marks by class. utf8proc's own sort is quadratic: a megabyte of marks
// in the wrong order would take hours.
void order_marks(std::vector<utf8proc_int32_t>& chars) {
  const auto is_mark = [](utf8proc_int32_t c) { return combining_class(c) != 0; };
  const auto lower = [](utf8proc_int32_t a, utf8proc_int32_t b) {
    return combining_class(a) < combining_class(b);
  };
  for (auto first = chars.begin(); first != chars.end();) {
    first = std::find_if(first, chars.end(), is_mark);
    const auto last = std::find_if_not(first, chars.end(), is_mark);
    if (!std::is_sorted(first, last, lower)) std::stable_sort(first, last, lower);
    first = last;
  }
}

void append_nfc(std::string_view text, std::vector<utf8proc_int32_t>& chars, std::string& out) {
  chars.clear();
  for (std::size_t i = 0; i < text.size(); i += utf8_length(text[i])) {
    const auto code_point = static_cast<utf8proc_int32_t>(utf8_decode(text.data() + i));
    std::array<utf8proc_int32_t, 32> parts;  // the longest canonical decomposition has four
    int boundary = 0;
    const auto n = utf8proc_decompose_char(code_point, parts.data(), parts.size(), kNfc, &boundary);
    if (n < 0 || n > static_cast<utf8proc_ssize_t>(parts.size())) {
      throw Error(
          {.code = "unicode_normalization",
           .message = std::string("utf8proc cannot decompose a character: ") + utf8proc_errmsg(n)});
    }
    chars.insert(chars.end(), parts.begin(), parts.begin() + n);
  }
  order_marks(chars);
  const auto n =
      utf8proc_normalize_utf32(chars.data(), static_cast<utf8proc_ssize_t>(chars.size()), kNfc);
  for (utf8proc_ssize_t i = 0; i < n; ++i) {
    append_utf8(out, static_cast<char32_t>(chars[static_cast<std::size_t>(i)]));
  }
}

// Offset of the first character at or after `from` that is not surely inert.
std::size_t skip_inert(std::string_view text, std::size_t from) {
  std::size_t i = skip_ascii(text, from);
  while (i < text.size() && is_nfc_inert(utf8_decode(text.data() + i))) {
    i = skip_ascii(text, i + utf8_length(text[i]));
  }
  return i;
}

std::size_t skip_not_inert(std::string_view text, std::size_t from) {
  std::size_t i = from;
  while (i < text.size() && !is_nfc_inert(utf8_decode(text.data() + i))) i += utf8_length(text[i]);
  return i;
}

}  // namespace

bool is_nfc_inert(char32_t code_point) {
  const auto* range = std::lower_bound(std::begin(kInert), std::end(kInert), code_point,
                                       [](const Range& r, char32_t c) { return r.last < c; });
  return range != std::end(kInert) && code_point >= range->first;
}

std::string_view normalize_nfc(std::string_view text, std::string& buffer) {
  std::size_t stop = skip_inert(text, 0);
  if (stop == text.size()) return text;
  buffer.clear();
  buffer.reserve(text.size());
  std::vector<utf8proc_int32_t> chars;
  std::size_t copied = 0;
  while (stop < text.size()) {
    // What stops us may combine with the one character before it, which combines with none before.
    std::size_t start = stop;
    if (start > copied) {
      do --start;
      while ((static_cast<unsigned char>(text[start]) & 0xC0) == 0x80);
    }
    const std::size_t end = skip_not_inert(text, stop);
    buffer.append(text, copied, start - copied);
    append_nfc(text.substr(start, end - start), chars, buffer);
    copied = end;
    stop = skip_inert(text, end);
  }
  buffer.append(text, copied, text.npos);
  return buffer;
}

}  // namespace qwen
