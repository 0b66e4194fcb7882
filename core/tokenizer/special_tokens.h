// Finds the tokens that are written in the text as they are, such as <|im_end|> and <tool_call>.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace qwen {

struct SpecialMatch {
  std::size_t offset;
  std::size_t length;
  std::int32_t id;
};

// A trie. Immutable once filled: threads may share it.
class SpecialTokens {
 public:
  // Real tokens have a few dozen bytes, and even 65,536 numbered ones are alike in most of them.
  static constexpr std::size_t kMaxTokenBytes = 256;
  static constexpr std::size_t kMaxNodes = 1 << 21;  // 32 MiB

  // `text` must not be empty; a text added twice keeps the last id. Throws Error (kModel: names the
  // id) for a token that is too long, and for one too many: each byte that it does not share with
  // the beginning of another takes a node.
  void add(std::string_view text, std::int32_t id, bool is_control);
  // The leftmost match at or after `from`, the longest of those; of control tokens only
  // `with_control`. Time is linear in the text: at each place at most kMaxTokenBytes steps, each
  // past at most 256 siblings.
  std::optional<SpecialMatch> find(std::string_view text, std::size_t from,
                                   bool with_control) const;

 private:
  struct Node {
    unsigned char byte;
    bool is_control = false;
    std::int32_t id = -1;     // of the token that ends here
    std::uint32_t child = 0;  // node indices plus one; 0: none
    std::uint32_t next_sibling = 0;
  };

  // Index plus one of the node for `byte` in a list of siblings, 0 when there is none.
  std::uint32_t sibling(std::uint32_t first, unsigned char byte) const;

  std::vector<Node> nodes_;
  std::array<std::uint32_t, 256> roots_{};  // by first byte; index plus one
};

}  // namespace qwen
