// The merge rules of byte-pair encoding: (left id, right id) -> rank and merged id.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/keyed_hash.h"
#include "core/tokenizer/token_table.h"

namespace qwen {

inline constexpr std::uint32_t kNoRank = 0xFFFFFFFFu;

struct MergeRule {
  std::int32_t left;
  std::int32_t right;
  std::int32_t merged;
};

class MergeTable {
 public:
  // Throws Error (kModel) naming the index of a merge that is malformed, of tokens that do not
  // exist, given twice, or that would make a control or user-defined token out of plain text.
  MergeTable(const TokenTable& tokens, std::span<const std::string_view> merges);

  // kNoRank when the two do not merge. Lower ranks merge first.
  std::uint32_t rank(std::int32_t left, std::int32_t right) const {
    for (std::size_t i = home(left, right);; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.rank == kNoRank || (slot.left == left && slot.right == right)) return slot.rank;
    }
  }
  const MergeRule& rule(std::uint32_t rank) const { return rules_[rank]; }
  std::size_t size() const { return rules_.size(); }
  // For tests: how many slots the costliest rank() of a rule looks at, and the table's own hash.
  std::size_t longest_probe() const;
  const KeyedHash& hash() const { return hash_; }

 private:
  struct Slot {
    std::int32_t left = -1;
    std::int32_t right = -1;
    std::uint32_t rank = kNoRank;
  };

  std::size_t home(std::int32_t left, std::int32_t right) const {
    const std::uint64_t key = static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
                              static_cast<std::uint32_t>(right);
    return hash_(key) & mask_;
  }
  // Appends the rule of `merges[index]`, whose two tokens were looked up.
  void append(const TokenTable& tokens, std::span<const std::string_view> merges, std::size_t index,
              std::int32_t left_id, std::int32_t right_id);

  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
  std::size_t mask_ = 0;
  KeyedHash hash_;
  std::vector<MergeRule> rules_;  // by rank
};

}  // namespace qwen
