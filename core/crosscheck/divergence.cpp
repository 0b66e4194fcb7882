#include "core/crosscheck/divergence.h"

#include <algorithm>

#include "core/crosscheck/pattern.h"
#include "core/kv_layout.h"

namespace qwen::crosscheck {
namespace {

// The token of the n-th row of logits.
std::size_t nth_wanted(std::span<const TokenInput> tokens, std::size_t n) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i].wants_logits && n-- == 0) return i;
  }
  return tokens.size();
}

void locate(Divergence& d, const Op& op, const Tensor& output, std::span<const TokenInput> tokens) {
  std::int64_t rest = d.element.index;
  if (const auto* w = std::get_if<KvWrite>(&op); w != nullptr && output.rank == 4) {
    // (page, kv_head, slot, d): the position follows from the page table.
    const KvLayout layout = kv_layout(w->k_cache, w->pages);
    const std::int64_t per_head = layout.page_tokens * layout.head_dim;
    const std::int64_t page = rest / (layout.n_kv_heads * per_head);
    const std::int32_t* table = w->pages.i32();
    const std::int32_t* entry = std::find(table, table + w->pages.size(), page);
    const std::int64_t at = entry - table;  // the table's size if the page is nobody's
    d.coords = {rest / per_head % layout.n_kv_heads, rest % layout.head_dim};
    d.seq = at < w->pages.size() ? static_cast<std::int32_t>(at / layout.pages_per_seq) : -1;
    if (d.seq < 0) return;
    d.token = at % layout.pages_per_seq * layout.page_tokens + rest % per_head / layout.head_dim;
    return;
  }
  if (d.output == "pages" || d.output == "seen") {  // a row for each sequence
    d.seq = static_cast<std::int32_t>(rest / output.shape[1]);
    d.coords = {rest % output.shape[1]};
    if (d.output == "pages") return;
    const auto chosen = std::find_if(tokens.begin(), tokens.end(), [&](const TokenInput& t) {
      return t.wants_logits && t.seq == d.seq;
    });
    if (chosen != tokens.end()) d.token = chosen->pos;
    return;
  }
  const std::int64_t n_rows = output.shape[0];
  const std::int64_t per_row = output.size() / std::max<std::int64_t>(1, n_rows);
  std::size_t row = static_cast<std::size_t>(rest / per_row);
  if (n_rows != static_cast<std::int64_t>(tokens.size())) row = nth_wanted(tokens, row);
  if (row < tokens.size()) {
    d.token = tokens[row].pos;
    d.seq = tokens[row].seq;
  }
  d.coords = coords_in_row(output, rest);
}

}  // namespace

Divergence divergence_of(const Judgement& judgement, const Op& op, const Tap& tap,
                         const Tensor& output, std::span<const TokenInput> tokens) {
  Divergence d{.tap = tap,
               .output = judgement.output,
               .element = judgement.first,
               .n_failed = judgement.n_failed,
               .n_elements = judgement.n_elements};
  std::vector<std::int32_t> pos;
  for (const TokenInput& t : tokens) pos.push_back(t.pos);
  d.pattern = pattern_of(output, judgement.failed, pos);
  locate(d, op, output, tokens);
  return d;
}

}  // namespace qwen::crosscheck
