// Panels: 16 rows of a quantised weight, word by word beside each other, so that a lane is a row.
//
// A panel has the bytes of its rows: column of blocks after column of blocks, of each the blocks'
// 32-bit words in their order in the file, 16 rows of each. The F16 scale of a block that is not a
// whole number of words is a field of 16 bits, before the words or behind them as in the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "backends/cpu/kernels/int8.h"
#include "backends/cpu/kernels/prefetch.h"
#include "backends/cpu/kernels/words.h"
#include "core/blocks.h"

namespace qwen::cpu {

template <class Block>
struct PanelLayout {
  static constexpr std::size_t kWords = sizeof(Block) / 4;
  static constexpr bool kHasHalf = sizeof(Block) % 4 != 0;
  static constexpr bool kHalfFirst = kHasHalf && offsetof(Block, d) == 0;
  static constexpr std::size_t kBytes = kPanelRows * sizeof(Block);  // of a column of blocks
  static constexpr std::size_t kFirstWord = kHalfFirst ? 2 : 0;      // in a block
  static constexpr std::size_t kHalf = kHalfFirst ? 0 : 4 * kWords;

  // Calls f(offset in a block, offset in the panel) for the fields of row `row`'s block, with the
  // field's bytes as a type; for its words from first_word on.
  template <class F>
  static void for_each_field(std::int64_t row, std::size_t first_word, F f) {
    using Two = std::uint16_t;
    using Four = std::uint32_t;
    if constexpr (kHasHalf) f(Two(), kHalf, kPanelRows * kHalf + sizeof(Two) * row);
#pragma GCC unroll 64
    for (std::size_t w = first_word; w < kWords; ++w) {
      const std::size_t at = kFirstWord + sizeof(Four) * w;
      f(Four(), at, kPanelRows * at + sizeof(Four) * row);
    }
  }
};

// Rows that are missing become zeros.
template <class Arch, class Block>
void to_panel(const std::byte* rows, std::size_t row_bytes, std::int64_t n_rows, std::byte* panel) {
  using Layout = PanelLayout<Block>;
  if (n_rows < kPanelRows) std::memset(panel, 0, kPanelRows * row_bytes);
  const std::size_t transposed = n_rows < kPanelRows ? 0 : Layout::kWords / 4 * 4;
  for (std::size_t b = 0; b < row_bytes; b += sizeof(Block), panel += Layout::kBytes) {
    for (std::size_t w = 0; w < transposed; w += 4) {
      const std::size_t at = Layout::kFirstWord + 4 * w;
      Words<Arch>::store_transposed(rows + b + at, row_bytes, panel + kPanelRows * at);
    }
    for (std::int64_t r = 0; r < n_rows; ++r) {
      const std::byte* const block = rows + r * row_bytes + b;
      // Of the next panel: 16 rows at once are more than the processor looks ahead for. Measured
      // (Zen 4, whole program, 525 MB of Q8_0, ms to the first token): 243, without 286.
      prefetch<Cache::kThird>(block, kPanelRows * row_bytes, 1);
      Layout::for_each_field(r, transposed,
                             [&](auto field, std::size_t in_block, std::size_t in_panel) {
                               std::memcpy(panel + in_panel, block + in_block, sizeof field);
                             });
    }
  }
}

// Row `row` of a panel, as in the file.
template <class Arch, class Block>
void from_panel(const std::byte* panel, std::int64_t row, std::size_t row_bytes, std::byte* to) {
  using Layout = PanelLayout<Block>;
  for (std::size_t b = 0; b < row_bytes; b += sizeof(Block), panel += Layout::kBytes) {
    Layout::for_each_field(row, 0, [&](auto field, std::size_t in_block, std::size_t in_panel) {
      std::memcpy(to + b + in_block, panel + in_panel, sizeof field);
    });
  }
}

// Whether products of unsigned bytes of any value with signed ones can be taken. Where not, levels
// of eight bits are signed.
template <class Arch>
inline constexpr bool kMultipliesAllBytes = false;

// What a column of blocks of a panel holds, in parts of kSub columns, which share a scale:
//
//   kOffset        is added to the levels of core/blocks.h; they are unsigned, or signed if kSigned
//   kLargest       magnitude of a level
//   levels(p, k)   of columns [4 k, 4 k + 4) of part p: four bytes per row
//   scale(p), min(p)   of part p; min() if kHasMin
template <class Arch, class Block>
class PanelBlock;

template <class Arch, class Block>
class PanelBlockBase {
 public:
  static constexpr int kSub = 32;
  static constexpr bool kHasMin = false;
  static constexpr bool kSigned = false;
  static constexpr int kOffset = 0;

  explicit PanelBlockBase(const std::byte* at) : at_(at) {}

 protected:
  using Layout = PanelLayout<Block>;
  Words<Arch> word(int w) const {
    return Words<Arch>::load(at_ + kPanelRows * (Layout::kFirstWord + 4 * w));
  }
  // Low nibbles of words w, w + 1, ... are the columns' in order, then high ones; k counts both.
  Words<Arch> nibbles(int w, int k, int n_words) const {
    return (word(w + k % n_words) >> 4 * (k / n_words)) & 0x0f0f0f0fu;
  }
  Floats<Arch> half() const { return Floats<Arch>::halves(at_ + kPanelRows * Layout::kHalf); }

 private:
  const std::byte* at_;
};

// Levels of eight bits.
template <class Arch, class Block>
class WidePanelBlock : public PanelBlockBase<Arch, Block> {
 public:
  using PanelBlockBase<Arch, Block>::PanelBlockBase;
  static constexpr bool kSigned = !kMultipliesAllBytes<Arch>;
  static constexpr int kOffset = kSigned ? 0 : 128;
  static constexpr int kLargest = 128;
};

template <class Arch>
class PanelBlock<Arch, BlockQ8_0> : public WidePanelBlock<Arch, BlockQ8_0> {
 public:
  using WidePanelBlock<Arch, BlockQ8_0>::WidePanelBlock;
  Words<Arch> levels(int, int k) const {
    return PanelBlock::kSigned ? this->word(k) : this->word(k) ^ 0x80808080u;
  }
  Floats<Arch> scale(int) const { return this->half(); }
};

template <class Arch>
class PanelBlock<Arch, BlockIQ4_NL> : public WidePanelBlock<Arch, BlockIQ4_NL> {
 public:
  using WidePanelBlock<Arch, BlockIQ4_NL>::WidePanelBlock;
  Words<Arch> levels(int, int k) const { return this->nibbles(0, k, 4).lookup(kTable.levels); }
  Floats<Arch> scale(int) const { return this->half(); }

 private:
  struct Table {
    std::int8_t levels[16];
    constexpr Table() : levels{} {
      for (int q = 0; q < 16; ++q) {
        levels[q] = static_cast<std::int8_t>(iq4_level(q) ^ (PanelBlock::kSigned ? 0 : -128));
      }
    }
  };
  static constexpr Table kTable{};
};

template <class Arch>
class PanelBlock<Arch, BlockQ4_0> : public PanelBlockBase<Arch, BlockQ4_0> {
 public:
  using PanelBlockBase<Arch, BlockQ4_0>::PanelBlockBase;
  static constexpr int kOffset = 8;
  static constexpr int kLargest = 15;
  Words<Arch> levels(int, int k) const { return this->nibbles(0, k, 4); }
  Floats<Arch> scale(int) const { return this->half(); }
};

template <class Arch>
class PanelBlock<Arch, BlockQ5_0> : public PanelBlockBase<Arch, BlockQ5_0> {
 public:
  using PanelBlockBase<Arch, BlockQ5_0>::PanelBlockBase;
  static constexpr int kOffset = 16;
  static constexpr int kLargest = 31;
  Words<Arch> levels(int, int k) const {
    return this->nibbles(1, k, 4) | this->word(0).spread(k, 16);
  }
  Floats<Arch> scale(int) const { return this->half(); }
};

// The first word has the scale and the minimum of a block.
template <class Arch, class Block>
class PanelBlockWithMin : public PanelBlockBase<Arch, Block> {
 public:
  using PanelBlockBase<Arch, Block>::PanelBlockBase;
  static constexpr bool kHasMin = true;
  Floats<Arch> scale(int) const { return this->word(0).low_halves(); }
  Floats<Arch> min(int) const { return -(this->word(0) >> 16).low_halves(); }

 private:
  static_assert(offsetof(Block, d) == 0 && offsetof(Block, m) == 2);
};

template <class Arch>
class PanelBlock<Arch, BlockQ4_1> : public PanelBlockWithMin<Arch, BlockQ4_1> {
 public:
  using PanelBlockWithMin<Arch, BlockQ4_1>::PanelBlockWithMin;
  static constexpr int kLargest = 15;
  Words<Arch> levels(int, int k) const { return this->nibbles(1, k, 4); }
};

template <class Arch>
class PanelBlock<Arch, BlockQ5_1> : public PanelBlockWithMin<Arch, BlockQ5_1> {
 public:
  using PanelBlockWithMin<Arch, BlockQ5_1>::PanelBlockWithMin;
  static constexpr int kLargest = 31;
  Words<Arch> levels(int, int k) const {
    return this->nibbles(2, k, 4) | this->word(1).spread(k, 16);
  }
};

// Eight parts; the first word has the factors of their scales and minima, three more have these: of
// parts 0 to 3 in six bits of a byte, of the others four bits in the third word and two above the
// six bits of the first and the second.
template <class Arch, class Block>
class PanelBlockOfK : public PanelBlockBase<Arch, Block> {
 public:
  using PanelBlockBase<Arch, Block>::PanelBlockBase;
  static constexpr bool kHasMin = true;
  Floats<Arch> scale(int p) const {
    const Words<Arch> six = p < 4 ? this->word(1) >> 8 * p & 63
                                  : (this->word(3) >> 8 * (p - 4) & 15) | above(this->word(1), p);
    return six.unsigned_values() * this->word(0).low_halves();
  }
  Floats<Arch> min(int p) const {
    const Words<Arch> six =
        p < 4 ? this->word(2) >> 8 * p & 63
              : (this->word(3) >> (8 * (p - 4) + 4) & 15) | above(this->word(2), p);
    return six.unsigned_values() * (this->word(0) >> 16).low_halves();
  }

 private:
  static_assert(offsetof(Block, d) == 0 && offsetof(Block, dmin) == 2 &&
                offsetof(Block, scales) == 4);
  static Words<Arch> above(Words<Arch> word, int p) { return word >> (8 * (p - 4) + 2) & 48; }
};

template <class Arch>
class PanelBlock<Arch, BlockQ4_K> : public PanelBlockOfK<Arch, BlockQ4_K> {
 public:
  using PanelBlockOfK<Arch, BlockQ4_K>::PanelBlockOfK;
  static constexpr int kLargest = 15;
  Words<Arch> levels(int p, int k) const {
    return (this->word(4 + 8 * (p / 2) + k) >> 4 * (p % 2)) & 0x0f0f0f0fu;
  }
};

template <class Arch>
class PanelBlock<Arch, BlockQ5_K> : public PanelBlockOfK<Arch, BlockQ5_K> {
 public:
  using PanelBlockOfK<Arch, BlockQ5_K>::PanelBlockOfK;
  static constexpr int kLargest = 31;
  // Bit p of a byte of words 4 to 11 is the fifth one of part p.
  Words<Arch> levels(int p, int k) const {
    return ((this->word(12 + 8 * (p / 2) + k) >> 4 * (p % 2)) & 0x0f0f0f0fu) |
           ((this->word(4 + k) >> p) & 0x01010101u) << 4;
  }
};

// 16 parts. Of 128 columns, 16 words have the low nibbles of the first 64 and the high ones of the
// last; 8 words have the upper two bits of all, 32 columns per pair of bits.
template <class Arch>
class PanelBlock<Arch, BlockQ6_K> : public PanelBlockBase<Arch, BlockQ6_K> {
 public:
  using PanelBlockBase<Arch, BlockQ6_K>::PanelBlockBase;
  static constexpr int kSub = 16;
  static constexpr int kOffset = 32;
  static constexpr int kLargest = 63;
  Words<Arch> levels(int p, int k) const {
    const int quarter = p % 8 / 2;
    const Words<Arch> low = this->word(16 * (p / 8) + 4 * (p % 4) + k) >> 4 * (quarter / 2);
    const Words<Arch> high = this->word(32 + 8 * (p / 8) + 4 * (p % 2) + k) >> 2 * quarter;
    return (low & 0x0f0f0f0fu) | (high & 0x03030303u) << 4;
  }
  Floats<Arch> scale(int p) const {
    return this->word(48 + p / 4).signed_bytes(p % 4) * this->half();
  }
};

// A panel as one goes through it, part by part: part(b, p) is part p of the kParts of column of
// blocks b, part(i) is number i of all. The same for a panel whose levels are bytes and whose
// scales are floats (Int8Format::expand).
template <class Arch, class Block>
class StoredPanel {
 public:
  using At = PanelBlock<Arch, Block>;
  static constexpr int kSub = At::kSub;
  static constexpr bool kHasMin = At::kHasMin;
  static constexpr bool kSigned = At::kSigned;
  static constexpr int kLargest = At::kLargest;
  static constexpr int kParts = Block::kElements / kSub;

  explicit StoredPanel(const std::byte* panel) : panel_(panel) {}

  class Part {
   public:
    Part(At block, int p) : block_(block), p_(p) {}
    Words<Arch> levels(int k) const { return block_.levels(p_, k); }
    Floats<Arch> scale() const { return block_.scale(p_); }
    Floats<Arch> min() const { return block_.min(p_); }

   private:
    At block_;
    int p_;
  };
  Part part(std::int64_t block, int p) const { return {At(column(block)), p}; }
  Part part(std::int64_t i) const { return part(i / kParts, static_cast<int>(i % kParts)); }

  // Asks for a part's share of what comes some kilobytes later, in this panel or the next. The
  // fields of larger blocks lie too far apart for the processor to see an order in the loads, and
  // what they wait for takes the places of what is asked for into the first cache. Measured (Zen 4,
  // one thread, from memory, GB/s): Q6_K 11 with what is best for Q8_0, 23 with this; Q8_0 27, and
  // 22 with what is best for Q6_K.
  void prefetch_after(std::int64_t block, int p) const {
    constexpr std::size_t kShare = PanelLayout<Block>::kBytes / kParts;
    const std::byte* const share = column(block) + static_cast<std::size_t>(p) * kShare;
    if constexpr (kParts == 1) {
      prefetch_stream<Cache::kFirst, 4096>(share, kShare);
    } else {
      prefetch<Cache::kThird>(share, 8192, kShare);
    }
  }

 private:
  const std::byte* column(std::int64_t block) const {
    return panel_ + block * PanelLayout<Block>::kBytes;
  }

  const std::byte* panel_;
};

template <class Arch, int sub, bool has_min, bool is_signed, int largest>
class ExpandedPanel {
 public:
  static constexpr int kSub = sub;
  static constexpr bool kHasMin = has_min;
  static constexpr bool kSigned = is_signed;
  static constexpr int kLargest = largest;
  static constexpr int kParts = 1;

  struct Part {
    Floats<Arch> scales;
    Floats<Arch> mins[has_min ? 1 : 0];
    Words<Arch> words[sub / 4];

    const Words<Arch>& levels(int k) const { return words[k]; }
    const Floats<Arch>& scale() const { return scales; }
    const Floats<Arch>& min() const { return mins[0]; }
  };

  explicit ExpandedPanel(const std::byte* panel) : parts_(reinterpret_cast<const Part*>(panel)) {}
  const Part& part(std::int64_t block, int /*p*/) const { return parts_[block]; }
  const Part& part(std::int64_t i) const { return parts_[i]; }
  void prefetch_after(std::int64_t /*block*/, int /*p*/) const {}  // it is in a cache

 private:
  const Part* parts_;
};

template <class Arch, class Block>
using ExpandedPanelOf =
    ExpandedPanel<Arch, PanelBlock<Arch, Block>::kSub, PanelBlock<Arch, Block>::kHasMin,
                  PanelBlock<Arch, Block>::kSigned, PanelBlock<Arch, Block>::kLargest>;

// Calls f(part) for the parts of a panel of n_cols columns in order, ahead of which the memory is
// asked for. Inlined: where p is a constant so are shifts, and what parts share is read once.
template <class Panel, class F>
[[gnu::always_inline]] inline void stream_parts(const Panel& panel, std::int64_t n_cols, F f) {
  for (std::int64_t b = 0; b < n_cols / (Panel::kSub * Panel::kParts); ++b) {
#pragma GCC unroll 16
    for (int p = 0; p < Panel::kParts; ++p) {
      panel.prefetch_after(b, p);
      f(panel.part(b, p));
    }
  }
}

template <class Arch, class Block>
void expand(const std::byte* panel, std::int64_t n_cols, std::byte* to) {
  using Panel = StoredPanel<Arch, Block>;
  auto* out = reinterpret_cast<typename ExpandedPanelOf<Arch, Block>::Part*>(to);
  const auto expand_part = [&out](const auto& part) __attribute__((always_inline)) {
    out->scales = part.scale();
    if constexpr (Panel::kHasMin) out->mins[0] = part.min();
#pragma GCC unroll 8
    for (int k = 0; k < Panel::kSub / 4; ++k) out->words[k] = part.levels(k);
    ++out;
  };
  stream_parts(Panel(panel), n_cols, expand_part);
}

}  // namespace qwen::cpu
