#include "core/tokenizer/special_tokens.h"

#include <string>

#include "core/tokenizer/vocabulary.h"

namespace qwen {
namespace {

[[noreturn]] void refuse_token(const char* code, std::string_view text, std::int32_t id,
                               const std::string& why) {
  refuse_vocabulary(vocabulary_keys::kTokens, code,
                    "token " + std::to_string(id) + " " + quoted(text) + ": " + why);
}

}  // namespace

std::uint32_t SpecialTokens::sibling(std::uint32_t first, unsigned char byte) const {
  std::uint32_t node = first;
  while (node != 0 && nodes_[node - 1].byte != byte) node = nodes_[node - 1].next_sibling;
  return node;
}

void SpecialTokens::add(std::string_view text, std::int32_t id, bool is_control) {
  if (text.size() > kMaxTokenBytes) {
    refuse_token("special_token_too_long", text, id,
                 "a control or user-defined token of " + std::to_string(text.size()) +
                     " bytes, at most " + std::to_string(kMaxTokenBytes) + " are allowed");
  }
  if (nodes_.size() + text.size() > kMaxNodes) {
    refuse_token("too_many_special_tokens", text, id,
                 "the control and user-defined tokens up to this one have more than " +
                     std::to_string(kMaxNodes) + " different bytes");
  }
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
  nodes_[node - 1].is_control = is_control;
}

std::optional<SpecialMatch> SpecialTokens::find(std::string_view text, std::size_t from,
                                                bool with_control) const {
  if (nodes_.empty()) return std::nullopt;
  for (std::size_t start = from; start < text.size(); ++start) {
    std::uint32_t node = roots_[static_cast<unsigned char>(text[start])];
    std::optional<SpecialMatch> longest;
    for (std::size_t end = start + 1; node != 0; ++end) {
      const Node& here = nodes_[node - 1];
      const bool counts = here.id >= 0 && (with_control || !here.is_control);
      if (counts) longest = SpecialMatch{start, end - start, here.id};
      if (end == text.size()) break;
      node = sibling(here.child, static_cast<unsigned char>(text[end]));
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

}  // namespace qwen
