// Byte-pair encoding of one piece of text: the two neighbours of lowest rank merge, the leftmost
// first, until no two neighbours merge (Sennrich et al. 2016, over bytes).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/tokenizer/merge_queue.h"
#include "core/tokenizer/merge_table.h"
#include "core/tokenizer/token_table.h"

namespace qwen {

// Working memory of one thread, reused from piece to piece.
class BpeScratch {
 private:
  friend class Bpe;
  // A token covers `length` bytes from its first; its last byte holds the length too, so that both
  // neighbours are found without links. Bytes inside a token have the id kInside.
  struct Symbol {
    std::int32_t id;
    std::uint32_t length;
  };
  std::vector<Symbol> symbols_;
  MergeQueue queue_;
};

class Bpe {
 public:
  // Throws Error (kModel), see MergeTable.
  Bpe(const TokenTable& tokens, std::span<const std::string_view> merges);

  // Appends the ids of `piece` (any bytes). Threads need a scratch each.
  // Throws Error (kUsage) when the piece has 4 GiB or more.
  void encode(std::string_view piece, BpeScratch& scratch, std::vector<std::int32_t>& out) const;

  // The two ways, with equal results: by scanning, quadratic, for at most kShortPiece bytes; by a
  // queue, n log n at worst, for any length.
  static constexpr std::size_t kShortPiece = 192;
  void encode_short(std::string_view piece, std::vector<std::int32_t>& out) const;
  void encode_long(std::string_view piece, BpeScratch& scratch,
                   std::vector<std::int32_t>& out) const;

 private:
  std::array<std::int32_t, 256> byte_ids_;
  MergeTable merges_;
};

}  // namespace qwen
