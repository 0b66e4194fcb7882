#include "core/chat_template/text.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace qwen::jinja {

Text::Text(std::string bytes, bool from_template) : bytes_(std::move(bytes)) {
  add_run(bytes_.size(), from_template);
}

void Text::add_run(std::size_t end, bool from_template) {
  if (end == (runs_.empty() ? 0 : runs_.back().end)) return;
  if (!runs_.empty() && runs_.back().from_template == from_template) {
    runs_.back().end = end;
  } else {
    runs_.push_back({end, from_template});
  }
}

void Text::append(std::string_view bytes, bool from_template) {
  bytes_.append(bytes);
  add_run(bytes_.size(), from_template);
}

void Text::append(const Text& other, std::size_t begin, std::size_t end) {
  assert(&other != this && begin <= end && end <= other.size());
  if (begin == end) return;
  const std::size_t base = bytes_.size();
  bytes_.append(other.bytes_, begin, end - begin);
  auto run = std::upper_bound(other.runs_.begin(), other.runs_.end(), begin,
                              [](std::size_t at, const Run& r) { return at < r.end; });
  for (; run != other.runs_.end(); ++run) {
    add_run(base + std::min(run->end, end) - begin, run->from_template);
    if (run->end >= end) break;
  }
}

Text Text::slice(std::size_t begin, std::size_t end) const {
  Text part;
  part.append(*this, begin, end);
  return part;
}

Text Text::with_bytes(std::string bytes) const {
  assert(bytes.size() == bytes_.size());
  Text other;
  other.bytes_ = std::move(bytes);
  other.runs_ = runs_;
  return other;
}

}  // namespace qwen::jinja
