#include "core/chat_template/text_ops.h"

#include <algorithm>
#include <cstring>

namespace qwen::jinja {

namespace {

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

bool contains_code_point(std::string_view chars, char32_t wanted) {
  for (std::size_t pos = 0; pos < chars.size();) {
    if (next_code_point(chars, pos) == wanted) return true;
  }
  return false;
}

// Length of the valid UTF-8 sequence at `pos`, or 0.
std::size_t sequence_length(std::string_view bytes, std::size_t pos, char32_t& code_point) {
  const auto lead = static_cast<unsigned char>(bytes[pos]);
  std::size_t n = 0;
  char32_t lowest = 0;
  if (lead < 0x80) {
    code_point = lead;
    return 1;
  } else if ((lead & 0xE0) == 0xC0) {
    n = 2, lowest = 0x80, code_point = lead & 0x1F;
  } else if ((lead & 0xF0) == 0xE0) {
    n = 3, lowest = 0x800, code_point = lead & 0x0F;
  } else if ((lead & 0xF8) == 0xF0) {
    n = 4, lowest = 0x10000, code_point = lead & 0x07;
  } else {
    return 0;
  }
  if (bytes.size() - pos < n) return 0;
  for (std::size_t i = 1; i < n; ++i) {
    if (!is_continuation(bytes[pos + i])) return 0;
    code_point = (code_point << 6) | (static_cast<unsigned char>(bytes[pos + i]) & 0x3F);
  }
  const bool surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
  return code_point < lowest || code_point > 0x10FFFF || surrogate ? 0 : n;
}

}  // namespace

char32_t next_code_point(std::string_view bytes, std::size_t& pos) {
  char32_t code_point = 0;
  if (const std::size_t n = sequence_length(bytes, pos, code_point)) {
    pos += n;
    return code_point;
  }
  return static_cast<unsigned char>(bytes[pos++]);
}

void step_back(std::string_view bytes, std::size_t& pos) {
  --pos;
  while (pos > 0 && is_continuation(bytes[pos])) --pos;
}

bool is_valid_utf8(std::string_view bytes) {
  char32_t code_point = 0;
  for (std::size_t pos = 0; pos < bytes.size();) {
    const std::size_t n = sequence_length(bytes, pos, code_point);
    if (n == 0) return false;
    pos += n;
  }
  return true;
}

void append_utf8(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

std::size_t count_code_points(std::string_view bytes) {
  std::size_t n = 0;
  for (char c : bytes) n += !is_continuation(c);
  return n;
}

std::vector<std::size_t> code_point_offsets(std::string_view bytes) {
  std::vector<std::size_t> offsets;
  for (std::size_t pos = 0; pos < bytes.size();) {
    offsets.push_back(pos);
    next_code_point(bytes, pos);
  }
  offsets.push_back(bytes.size());
  return offsets;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

std::size_t find_bytes(std::string_view bytes, std::string_view needle, std::size_t from) {
  if (from > bytes.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* found =
      ::memmem(bytes.data() + from, bytes.size() - from, needle.data(), needle.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<std::size_t>(static_cast<const char*>(found) - bytes.data());
}

Text strip(const Text& text, Side side, std::optional<std::string_view> chars) {
  const std::string_view bytes = text.bytes();
  const auto goes = [&](char32_t c) {
    return chars ? contains_code_point(*chars, c) : is_space(c);
  };
  std::size_t begin = 0;
  std::size_t end = bytes.size();
  while (side != Side::kRight && begin < end) {
    std::size_t next = begin;
    if (!goes(next_code_point(bytes, next))) break;
    begin = next;
  }
  while (side != Side::kLeft && end > begin) {
    std::size_t last = end;
    step_back(bytes, last);
    std::size_t next = last;
    if (!goes(next_code_point(bytes, next))) break;
    end = last;
  }
  return text.slice(begin, end);
}

std::vector<Text> split(const Text& text, std::string_view sep, long max) {
  std::vector<Text> parts;
  std::size_t begin = 0;
  for (; max != 0; --max) {
    const std::size_t found = find_bytes(text.bytes(), sep, begin);
    if (found == std::string_view::npos) break;
    parts.push_back(text.slice(begin, found));
    begin = found + sep.size();
  }
  parts.push_back(text.slice(begin, text.size()));
  return parts;
}

std::vector<Text> split_right(const Text& text, std::string_view sep, long max) {
  // Matches found from the right need not be those found from the left: "aaa".rsplit("aa").
  std::vector<Text> parts;
  const std::string_view bytes = text.bytes();
  std::size_t end = bytes.size();
  std::size_t pos = end >= sep.size() ? end - sep.size() + 1 : 0;
  while (max != 0 && pos > 0) {
    --pos;
    if (bytes.compare(pos, sep.size(), sep) != 0) continue;
    parts.push_back(text.slice(pos + sep.size(), end));
    end = pos;
    pos = end >= sep.size() ? end - sep.size() + 1 : 0;
    --max;
  }
  parts.push_back(text.slice(0, end));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<Text> split_space(const Text& text, long max) {
  std::vector<Text> parts;
  const std::string_view bytes = text.bytes();
  std::size_t pos = 0;
  const auto skip = [&](bool space) {
    while (pos < bytes.size()) {
      std::size_t next = pos;
      if (is_space(next_code_point(bytes, next)) != space) break;
      pos = next;
    }
  };
  for (skip(true); pos < bytes.size(); skip(true)) {
    const std::size_t begin = pos;
    if (max == 0) {
      parts.push_back(text.slice(begin, bytes.size()));
      break;
    }
    skip(false);
    parts.push_back(text.slice(begin, pos));
    --max;
  }
  return parts;
}

Text replace(const Text& text, std::string_view from, const Text& to, long max) {
  Text out;
  const std::string_view bytes = text.bytes();
  std::size_t pos = 0;
  if (from.empty()) {  // Python inserts before every code point and at the end
    for (; max != 0; --max) {
      out.append(to);
      if (pos == bytes.size()) return out;
      std::size_t next = pos;
      next_code_point(bytes, next);
      out.append(text, pos, next);
      pos = next;
    }
  }
  for (; max != 0; --max) {
    const std::size_t found = find_bytes(bytes, from, pos);
    if (found == std::string_view::npos) break;
    out.append(text, pos, found);
    out.append(to);
    pos = found + from.size();
  }
  out.append(text, pos, bytes.size());
  return out;
}

std::size_t count_occurrences(std::string_view bytes, std::string_view needle) {
  if (needle.empty()) return count_code_points(bytes) + 1;
  std::size_t n = 0;
  for (std::size_t pos = find_bytes(bytes, needle); pos != std::string_view::npos;
       pos = find_bytes(bytes, needle, pos + needle.size())) {
    ++n;
  }
  return n;
}

}  // namespace qwen::jinja
