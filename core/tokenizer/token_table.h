// The tokens of a vocabulary: spelling -> id and id -> bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/keyed_hash.h"
#include "core/tokenizer/vocabulary.h"

namespace qwen {

class TokenTable {
 public:
  static constexpr std::int32_t kNone = -1;

  // Throws Error (kModel) on a vocabulary that breaks a rule of the file format, naming the index.
  TokenTable(std::vector<std::string_view> tokens, std::vector<std::int32_t> types);

  std::int32_t size() const { return static_cast<std::int32_t>(tokens_.size()); }
  TokenType type(std::int32_t id) const {
    return static_cast<TokenType>(types_[static_cast<std::size_t>(id)]);
  }
  std::string_view spelling(std::int32_t id) const { return tokens_[static_cast<std::size_t>(id)]; }
  // The bytes that the token stands for.
  std::string_view bytes(std::int32_t id) const {
    const auto i = static_cast<std::size_t>(id);
    return std::string_view(bytes_).substr(ends_[i], ends_[i + 1] - ends_[i]);
  }
  // The id of a token by its spelling in the file, or kNone.
  std::int32_t find(std::string_view spelling) const { return find(spelling, hash_(spelling)); }
  // The same for each of `spellings`; they wait for memory together, in a third of the time.
  void find_all(std::span<const std::string_view> spellings, std::span<std::int32_t> ids) const;
  // The id of the token of one byte.
  std::int32_t byte_id(unsigned char byte) const { return byte_ids_[byte]; }
  // For tests: how many slots the costliest find() of a token looks at, and the table's own hash.
  std::size_t longest_probe() const;
  const KeyedHash& hash() const { return hash_; }

 private:
  struct Slot {
    std::uint32_t tag = 0;
    std::int32_t id = kNone;
  };

  std::size_t home(std::uint64_t hash) const { return hash & (slots_.size() - 1); }
  std::size_t next(std::size_t slot) const { return (slot + 1) & (slots_.size() - 1); }
  std::int32_t find(std::string_view spelling, std::uint64_t hash) const;
  void insert(std::int32_t id, std::uint64_t hash);
  void append_bytes(std::int32_t id);
  void require_all_bytes() const;

  std::vector<std::string_view> tokens_;
  std::vector<std::int32_t> types_;
  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
  KeyedHash hash_;
  std::string bytes_;
  std::vector<std::size_t> ends_;  // ends_[id] .. ends_[id + 1] in bytes_
  std::array<std::int32_t, 256> byte_ids_;
};

}  // namespace qwen
