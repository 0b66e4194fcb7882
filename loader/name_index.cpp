#include "loader/name_index.h"

#include <algorithm>
#include <tuple>

namespace qwen {
namespace {

// Ordered as the bytes are; shorter names are filled up with zeros.
std::uint64_t prefix_of(std::string_view name) {
  std::uint64_t prefix = 0;
  for (std::size_t i = 0; i < sizeof prefix; ++i) {
    prefix = prefix << 8 | (i < name.size() ? static_cast<unsigned char>(name[i]) : 0u);
  }
  return prefix;
}

}  // namespace

// The index breaks ties, so that the later one of two equal names is the duplicate. A type, not a
// function: a pointer to one would not be inlined into the sort.
struct NameIndex::Before {
  bool operator()(const Entry& a, const Entry& b) const {
    if (a.prefix != b.prefix) return a.prefix < b.prefix;
    return std::tie(a.name, a.index) < std::tie(b.name, b.index);
  }
};

void NameIndex::add(std::string_view name) {
  entries_.push_back({prefix_of(name), name, static_cast<std::uint32_t>(entries_.size())});
}

void NameIndex::sort() { std::sort(entries_.begin(), entries_.end(), Before()); }

std::optional<std::uint32_t> NameIndex::find(std::string_view name) const {
  const Entry wanted = {prefix_of(name), name, 0};
  const auto at = std::lower_bound(entries_.begin(), entries_.end(), wanted, Before());
  return at != entries_.end() && at->name == name ? std::optional(at->index) : std::nullopt;
}

std::optional<std::pair<std::uint32_t, std::uint32_t>> NameIndex::find_duplicate() const {
  const auto at =
      std::adjacent_find(entries_.begin(), entries_.end(),
                         [](const Entry& a, const Entry& b) { return a.name == b.name; });
  if (at == entries_.end()) return std::nullopt;
  return std::pair(at->index, std::next(at)->index);
}

}  // namespace qwen
