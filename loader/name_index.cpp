#include "loader/name_index.h"

#include <algorithm>

namespace qwen {
namespace {

// Different names have the same hash of 64 bits hardly ever, and never so many of them: these were
// one name when they were hashed, and their file was written to since.
constexpr std::size_t kMaxCollisions = 8;

}  // namespace

void NameIndex::add(std::string_view name) {
  entries_.push_back({hash_(name), name, static_cast<std::uint32_t>(entries_.size())});
}

void NameIndex::sort() {
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    return a.hash != b.hash ? a.hash < b.hash : a.index < b.index;
  });
}

std::optional<std::uint32_t> NameIndex::find(std::string_view name) const {
  const std::uint64_t hash = hash_(name);
  auto at = std::lower_bound(entries_.begin(), entries_.end(), hash,
                             [](const Entry& entry, std::uint64_t h) { return entry.hash < h; });
  for (; at != entries_.end() && at->hash == hash; ++at) {
    if (at->name == name) return at->index;
  }
  return std::nullopt;
}

std::optional<std::pair<std::uint32_t, std::uint32_t>> NameIndex::find_duplicate() const {
  std::optional<std::pair<std::uint32_t, std::uint32_t>> first;
  for (std::size_t i = 1; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    // One step where the name is the same; more only past other names of this hash.
    for (std::size_t j = i; j-- > 0 && entries_[j].hash == entry.hash;) {
      if (i - j < kMaxCollisions && entries_[j].name != entry.name) continue;
      if (!first || entry.index < first->second) first.emplace(entries_[j].index, entry.index);
      break;
    }
  }
  return first;
}

}  // namespace qwen
