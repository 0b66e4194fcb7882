#include "core/tokenizer/merge_table.h"

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

namespace qwen {
namespace {

// Merges whose tokens are looked up together.
constexpr std::size_t kTogether = 64;

[[noreturn]] void refuse_merge(const char* code, std::size_t index, std::string_view merge,
                               const std::string& why) {
  refuse_vocabulary(vocabulary_keys::kMerges, code,
                    "merge " + std::to_string(index) + " " + quoted(merge) + ": " + why);
}

bool is_concatenation(std::string_view whole, std::string_view left, std::string_view right) {
  return whole.size() == left.size() + right.size() && whole.starts_with(left) &&
         whole.ends_with(right);
}

// The two tokens of a merge; empty if it is not two with one space between them. The byte alphabet
// has no space, so a space can only be the separator.
std::pair<std::string_view, std::string_view> parts(std::string_view merge) {
  const std::size_t space = merge.find(' ');
  const bool are_two = space != merge.npos && space > 0 && space + 1 < merge.size() &&
                       merge.find(' ', space + 1) == merge.npos;
  if (!are_two) return {};
  return {merge.substr(0, space), merge.substr(space + 1)};
}

}  // namespace

MergeTable::MergeTable(const TokenTable& tokens, std::span<const std::string_view> merges) {
  if (merges.size() >= kNoRank / 4) {
    refuse_vocabulary(vocabulary_keys::kMerges, "too_many_merges",
                      std::to_string(merges.size()) + " merges");
  }
  // All of them are checked before they are given slots, which take more memory than the merges of
  // a damaged file may.
  rules_.reserve(merges.size());
  std::vector<std::string_view> spellings;
  std::vector<std::int32_t> ids;
  for (std::size_t first = 0; first < merges.size(); first += kTogether) {
    const std::size_t past = std::min(first + kTogether, merges.size());
    spellings.clear();
    for (std::size_t index = first; index < past; ++index) {
      const auto [left, right] = parts(merges[index]);
      spellings.insert(spellings.end(), {left, right});
    }
    ids.resize(spellings.size());
    tokens.find_all(spellings, ids);
    for (std::size_t index = first; index < past; ++index) {
      const std::size_t i = 2 * (index - first);
      append(tokens, merges, index, ids[i], ids[i + 1]);
    }
  }
  slots_.resize(std::bit_ceil(merges.size() * 2 + 2));
  mask_ = slots_.size() - 1;
  for (std::size_t index = 0; index < merges.size(); ++index) {
    const MergeRule& rule = rules_[index];
    std::size_t i = home(rule.left, rule.right);
    for (; slots_[i].rank != kNoRank; i = (i + 1) & mask_) {
      if (slots_[i].left == rule.left && slots_[i].right == rule.right) {
        refuse_merge("duplicate_merge", index, merges[index],
                     "the same as merge " + std::to_string(slots_[i].rank));
      }
    }
    slots_[i] = {rule.left, rule.right, static_cast<std::uint32_t>(index)};
  }
}

std::size_t MergeTable::longest_probe() const {
  std::size_t longest = 0;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].rank == kNoRank) continue;
    const std::size_t from = home(slots_[i].left, slots_[i].right);
    longest = std::max(longest, ((i - from) & mask_) + 1);
  }
  return longest;
}

void MergeTable::append(const TokenTable& tokens, std::span<const std::string_view> merges,
                        std::size_t index, std::int32_t left_id, std::int32_t right_id) {
  const std::string_view merge = merges[index];
  const auto [left, right] = parts(merge);
  if (left.empty()) {
    refuse_merge("bad_merge", index, merge, "expected two tokens with one space between them");
  }
  MergeRule rule = {left_id, right_id, TokenTable::kNone};
  // Tokens are numbered in the order of the merges that make them, nearly always: look there first.
  const std::int32_t guess = rules_.empty() ? TokenTable::kNone : rules_.back().merged + 1;
  if (guess > 0 && guess < tokens.size() && is_concatenation(tokens.spelling(guess), left, right)) {
    rule.merged = guess;
  } else {
    rule.merged = tokens.find(std::string(left) += right);
  }
  for (const std::int32_t id : {rule.left, rule.right, rule.merged}) {
    if (id == TokenTable::kNone) {
      const std::string_view unknown = rule.left == id ? left : rule.right == id ? right : merge;
      refuse_merge("unknown_token_in_merge", index, merge,
                   unknown.data() == merge.data() && unknown.size() == merge.size()
                       ? "its result is not a token"
                       : quoted(unknown) + " is not a token");
    }
    // Otherwise plain text could become a control token, whatever the caller asked for.
    if (tokens.type(id) != TokenType::kNormal) {
      refuse_merge("special_token_in_merge", index, merge,
                   "token " + std::to_string(id) + " is not a normal token");
    }
  }
  rules_.push_back(rule);
}

}  // namespace qwen
