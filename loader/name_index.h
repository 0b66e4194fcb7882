// NameIndex: finds keys and tensors by name. Sorted instead of hashed: no file can be crafted to
// make it quadratic. Internal to the loader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

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

  std::optional<std::uint32_t> find(std::string_view name) const;

  // Two items of one name, in the order of the file.
  std::optional<std::pair<std::uint32_t, std::uint32_t>> find_duplicate() const;

 private:
  struct Entry {
    std::uint64_t prefix;  // the first eight bytes, so that most comparisons stay in this array
    std::string_view name;
    std::uint32_t index;
  };
  struct Before;
  void add(std::string_view name);
  void sort();

  std::vector<Entry> entries_;
};

}  // namespace qwen
