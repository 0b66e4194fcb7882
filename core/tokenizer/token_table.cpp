#include "core/tokenizer/token_table.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <string>

#include "core/tokenizer/byte_alphabet.h"

namespace qwen {
namespace {

using vocabulary_keys::kTokens;
using vocabulary_keys::kTypes;

// Lookups whose memory is asked for before the first of them is used.
constexpr std::size_t kAhead = 32;

std::string number(std::int32_t id) { return std::to_string(id); }

}  // namespace

TokenTable::TokenTable(std::vector<std::string_view> tokens, std::vector<std::int32_t> types)
    : tokens_(std::move(tokens)), types_(std::move(types)) {
  // Half the range of int32, so that the table's size cannot overflow either.
  if (tokens_.size() > std::numeric_limits<std::int32_t>::max() / 2) {
    refuse_vocabulary(kTokens, "too_many_tokens", std::to_string(tokens_.size()) + " tokens");
  }
  if (types_.size() != tokens_.size()) {
    refuse_vocabulary(kTypes, "token_type_count",
                      "expected " + std::to_string(tokens_.size()) + " types, one per token, got " +
                          std::to_string(types_.size()));
  }
  std::size_t total = 0;
  for (const std::string_view token : tokens_) total += token.size();
  bytes_.reserve(total);
  ends_.reserve(tokens_.size() + 1);
  ends_.push_back(0);
  slots_.resize(std::bit_ceil(tokens_.size() * 2 + 2));
  byte_ids_.fill(kNone);
  std::array<std::uint64_t, kAhead> hashes;
  for (std::int32_t id = 0; id < size(); ++id) {
    const std::size_t n = static_cast<std::size_t>(id) % kAhead;
    if (n == 0) {
      const auto past = std::min(size(), id + static_cast<std::int32_t>(kAhead));
      for (std::int32_t ahead = id; ahead < past; ++ahead) {
        const std::uint64_t hash = hashes[static_cast<std::size_t>(ahead - id)] =
            hash_(spelling(ahead));
        __builtin_prefetch(&slots_[home(hash)], 1);
      }
    }
    insert(id, hashes[n]);
    append_bytes(id);
  }
  require_all_bytes();
}

void TokenTable::find_all(std::span<const std::string_view> spellings,
                          std::span<std::int32_t> ids) const {
  std::array<std::uint64_t, kAhead> hashes;
  for (std::size_t first = 0; first < spellings.size(); first += kAhead) {
    const auto some = spellings.subspan(first, std::min(kAhead, spellings.size() - first));
    for (std::size_t i = 0; i < some.size(); ++i) {
      hashes[i] = hash_(some[i]);
      __builtin_prefetch(&slots_[home(hashes[i])]);
    }
    const auto likely = [&](std::size_t i) { return std::max(slots_[home(hashes[i])].id, 0); };
    for (std::size_t i = 0; i < some.size(); ++i) __builtin_prefetch(&tokens_[likely(i)]);
    for (std::size_t i = 0; i < some.size(); ++i) __builtin_prefetch(spelling(likely(i)).data());
    for (std::size_t i = 0; i < some.size(); ++i) ids[first + i] = find(some[i], hashes[i]);
  }
}

std::int32_t TokenTable::find(std::string_view text, std::uint64_t hash) const {
  const auto tag = static_cast<std::uint32_t>(hash >> 32);
  for (std::size_t i = home(hash);; i = next(i)) {
    const Slot& slot = slots_[i];
    if (slot.id == kNone) return kNone;
    if (slot.tag == tag && spelling(slot.id) == text) return slot.id;
  }
}

std::size_t TokenTable::longest_probe() const {
  std::size_t longest = 0;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].id == kNone) continue;
    const std::size_t from = home(hash_(spelling(slots_[i].id)));
    longest = std::max(longest, ((i - from) & (slots_.size() - 1)) + 1);
  }
  return longest;
}

void TokenTable::insert(std::int32_t id, std::uint64_t hash) {
  const std::string_view text = spelling(id);
  if (text.empty()) {
    refuse_vocabulary(kTokens, "empty_token", "token " + number(id) + " is empty");
  }
  const auto tag = static_cast<std::uint32_t>(hash >> 32);
  std::size_t i = home(hash);
  for (; slots_[i].id != kNone; i = next(i)) {
    if (slots_[i].tag == tag && spelling(slots_[i].id) == text) {
      refuse_vocabulary(kTokens, "duplicate_token",
                        "token " + number(id) + " " + quoted(text) + " is the same as token " +
                            number(slots_[i].id));
    }
  }
  slots_[i] = {tag, id};
}

void TokenTable::append_bytes(std::int32_t id) {
  const std::string_view text = spelling(id);
  switch (type(id)) {
    case TokenType::kNormal: {
      std::size_t i = 0;
      while (i < text.size()) {
        // Only one- and two-byte characters are in the alphabet; a broken sequence decodes to none.
        const auto lead = static_cast<unsigned char>(text[i]);
        unsigned code_point = lead;
        std::size_t length = 1;
        if (lead >= 0x80 && i + 1 < text.size()) {
          const auto next = static_cast<unsigned char>(text[i + 1]);
          const bool two_bytes = lead >= 0xC2 && lead < 0xE0 && (next & 0xC0) == 0x80;
          code_point = two_bytes ? (lead & 0x1Fu) << 6 | (next & 0x3Fu) : 0xFFFFu;
          length = 2;
        } else if (lead >= 0x80) {
          code_point = 0xFFFFu;
        }
        const int byte =
            code_point < kCodePointToByte.size() ? kCodePointToByte[code_point] : kNone;
        if (byte < 0) {
          refuse_vocabulary(kTokens, "not_in_byte_alphabet",
                            "token " + number(id) + " " + quoted(text) +
                                ": the character at byte " + std::to_string(i) +
                                " is not in the byte alphabet");
        }
        bytes_ += static_cast<char>(byte);
        i += length;
      }
      if (bytes_.size() - ends_.back() == 1) {
        byte_ids_[static_cast<unsigned char>(bytes_.back())] = id;
      }
      break;
    }
    case TokenType::kUnknown:
    case TokenType::kControl:
    case TokenType::kUserDefined:
    case TokenType::kUnused:
      bytes_ += text;
      break;
    case TokenType::kByte:
    default:
      refuse_vocabulary(kTypes, "bad_token_type",
                        "token " + number(id) + " " + quoted(text) +
                            ": expected a type from 1 to 5, got " +
                            number(types_[static_cast<std::size_t>(id)]));
  }
  ends_.push_back(bytes_.size());
}

void TokenTable::require_all_bytes() const {
  for (unsigned byte = 0; byte < 256; ++byte) {
    if (byte_ids_[byte] == kNone) {
      refuse_vocabulary(kTokens, "missing_byte_token",
                        "no normal token for the byte " + std::to_string(byte) +
                            ": text that contains it could not be encoded");
    }
  }
}

}  // namespace qwen
