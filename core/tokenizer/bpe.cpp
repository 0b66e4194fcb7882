#include "core/tokenizer/bpe.h"

#include <algorithm>
#include <cassert>
#include <limits>

#include "core/error.h"

namespace qwen {
namespace {

constexpr std::int32_t kInside = -1;

}  // namespace

Bpe::Bpe(const TokenTable& tokens, std::span<const std::string_view> merges)
    : merges_(tokens, merges) {
  for (unsigned byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = tokens.byte_id(static_cast<unsigned char>(byte));
  }
}

void Bpe::encode(std::string_view piece, BpeScratch& scratch,
                 std::vector<std::int32_t>& out) const {
  if (piece.size() <= kShortPiece) {
    encode_short(piece, out);
  } else {
    encode_long(piece, scratch, out);
  }
}

void Bpe::encode_short(std::string_view piece, std::vector<std::int32_t>& out) const {
  assert(piece.size() <= kShortPiece);
  std::array<std::int32_t, kShortPiece> ids;
  std::array<std::uint32_t, kShortPiece> ranks;  // of the token and its right neighbour
  std::size_t n = piece.size();
  for (std::size_t i = 0; i < n; ++i) ids[i] = byte_ids_[static_cast<unsigned char>(piece[i])];
  for (std::size_t i = 0; i + 1 < n; ++i) ranks[i] = merges_.rank(ids[i], ids[i + 1]);
  while (n > 1) {
    const auto lowest = std::min_element(ranks.begin(), ranks.begin() + n - 1);
    if (*lowest == kNoRank) break;
    const auto at = static_cast<std::size_t>(lowest - ranks.begin());
    ids[at] = merges_.rule(*lowest).merged;
    std::copy(ids.begin() + at + 2, ids.begin() + n, ids.begin() + at + 1);
    std::copy(ranks.begin() + at + 1, ranks.begin() + n - 1, ranks.begin() + at);
    --n;
    if (at > 0) ranks[at - 1] = merges_.rank(ids[at - 1], ids[at]);
    if (at + 1 < n) ranks[at] = merges_.rank(ids[at], ids[at + 1]);
  }
  out.insert(out.end(), ids.begin(), ids.begin() + n);
}

void Bpe::encode_long(std::string_view piece, BpeScratch& scratch,
                      std::vector<std::int32_t>& out) const {
  if (piece.size() > std::numeric_limits<std::uint32_t>::max()) {
    throw Error({.exit = Exit::kUsage,
                 .code = "text_too_long",
                 .message = "a run of " + std::to_string(piece.size()) +
                            " bytes without a word boundary: at most 4294967295 are supported"});
  }
  const auto n = static_cast<std::uint32_t>(piece.size());
  auto& symbols = scratch.symbols_;
  auto& queue = scratch.queue_;
  queue.prepare(merges_.size(), n);
  symbols.resize(n);
  for (std::uint32_t i = 0; i < n; ++i) {
    symbols[i] = {byte_ids_[static_cast<unsigned char>(piece[i])], 1};
  }
  const auto offer = [&](std::uint32_t pos, std::uint32_t next) {
    const std::uint32_t rank = merges_.rank(symbols[pos].id, symbols[next].id);
    if (rank != kNoRank) queue.push({rank, pos});
  };
  for (std::uint32_t i = 0; i + 1 < n; ++i) offer(i, i + 1);

  while (const auto candidate = queue.pop()) {
    const MergeRule& rule = merges_.rule(candidate->rank);
    const std::uint32_t pos = candidate->pos;
    if (symbols[pos].id != rule.left) continue;  // merged into something else since
    const std::uint32_t right = pos + symbols[pos].length;
    if (right >= n || symbols[right].id != rule.right) continue;
    const std::uint32_t length = symbols[pos].length + symbols[right].length;
    const std::uint32_t next = pos + length;
    symbols[right].id = kInside;
    symbols[next - 1].length = length;
    symbols[pos] = {rule.merged, length};
    if (pos > 0) offer(pos - symbols[pos - 1].length, pos);
    if (next < n) offer(pos, next);
  }
  for (std::uint32_t pos = 0; pos < n; pos += symbols[pos].length) out.push_back(symbols[pos].id);
}

}  // namespace qwen
