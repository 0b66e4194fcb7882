#include "core/tokenizer/special_tokens.h"

namespace qwen {

std::uint32_t SpecialTokens::sibling(std::uint32_t first, unsigned char byte) const {
  std::uint32_t node = first;
  while (node != 0 && nodes_[node - 1].byte != byte) node = nodes_[node - 1].next_sibling;
  return node;
}

void SpecialTokens::add(std::string_view text, std::int32_t id) {
  std::uint32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const std::uint32_t first = node == 0 ? roots_[byte] : nodes_[node - 1].child;
    std::uint32_t next = sibling(first, byte);
    if (next == 0) {
      nodes_.push_back({.byte = byte, .next_sibling = first});
      next = static_cast<std::uint32_t>(nodes_.size());
      (node == 0 ? roots_[byte] : nodes_[node - 1].child) = next;
    }
    node = next;
  }
  nodes_[node - 1].id = id;
}

std::optional<SpecialMatch> SpecialTokens::find(std::string_view text, std::size_t from) const {
  if (nodes_.empty()) return std::nullopt;
  for (std::size_t start = from; start < text.size(); ++start) {
    std::uint32_t node = roots_[static_cast<unsigned char>(text[start])];
    std::optional<SpecialMatch> longest;
    for (std::size_t end = start + 1; node != 0; ++end) {
      const Node& here = nodes_[node - 1];
      if (here.id >= 0) longest = SpecialMatch{start, end - start, here.id};
      if (end == text.size()) break;
      node = sibling(here.child, static_cast<unsigned char>(text[end]));
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

}  // namespace qwen
