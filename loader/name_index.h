// NameIndex: finds keys and tensors by name, in time that no file can make quadratic, also one that
// somebody is writing to. Sorted by hashes, which it keeps: an order by names that change meanwhile
// would lead std::sort out of its range. Internal to the loader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "core/keyed_hash.h"

namespace qwen {

class NameIndex {
 public:
  NameIndex() = default;
  // `name_of(item)` is a view that outlives the index; items are numbered as they lie in the span.
  template <class Item, class NameOf>
  NameIndex(std::span<const Item> items, NameOf name_of) {
    entries_.reserve(items.size());
    for (const Item& item : items) add(name_of(item));
    sort();
  }

  // Fast if there are no duplicates.
  std::optional<std::uint32_t> find(std::string_view name) const;

  // The first item that has the name of one before it: (that one, the item). Or one of many that
  // had one name when the index was made: Source::check_unchanged() says why they have others now.
  std::optional<std::pair<std::uint32_t, std::uint32_t>> find_duplicate() const;

  // For tests: no other index has it.
  const KeyedHash& hash() const { return hash_; }

 private:
  struct Entry {
    std::uint64_t hash;
    std::string_view name;
    std::uint32_t index;
  };
  void add(std::string_view name);
  void sort();

  KeyedHash hash_;
  std::vector<Entry> entries_;
};

}  // namespace qwen
