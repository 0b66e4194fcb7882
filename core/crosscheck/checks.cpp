#include "core/crosscheck/checks.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "core/kv_layout.h"

namespace qwen::crosscheck {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Whose slot row r of a cache as (n_pages * n_kv_heads * page_tokens, head_dim) is: its sequence
// and position, or (-1, slot) of a page that no sequence has.
std::pair<std::int32_t, std::int64_t> owner(const KvLayout& layout, const Tensor& pages,
                                            std::int64_t r) {
  const std::int64_t slot = r % layout.page_tokens;
  const std::int64_t page = r / (layout.page_tokens * layout.n_kv_heads);
  const std::int32_t* table = pages.i32();
  const std::int64_t at = std::find(table, table + pages.size(), page) - table;
  if (at == pages.size()) return {-1, slot};
  return {static_cast<std::int32_t>(at / layout.pages_per_seq),
          at % layout.pages_per_seq * layout.page_tokens + slot};
}

}  // namespace

const TokenInput* StepTokens::of_row(std::int64_t r, std::int64_t n_rows) const {
  auto row = static_cast<std::size_t>(r);
  if (n_rows != static_cast<std::int64_t>(all.size()) && row < wanted.size()) row = wanted[row];
  return row < all.size() ? &all[row] : nullptr;
}

void CheckLog::add(const Tap& tap, const Judgement& judgement, const Contract& contract,
                   const Tensor& output) {
  Judged judged{.tap = tap,
                .output = judgement.output,
                .shape = {output.dims().begin(), output.dims().end()},
                .contract = contract,
                .verdict = judgement.verdict,
                .spread = judgement.spread.median,
                .n_checks = judgement.rows.size()};
  const auto n_rows = static_cast<std::int64_t>(judgement.rows.size());
  for (std::int64_t r = 0; r < n_rows; ++r) {
    const TokenInput* token = step_.of_row(r, n_rows);
    const Row& row = judgement.rows[static_cast<std::size_t>(r)];
    checks_.push_back({.tap = tap,
                       .output = judgement.output,
                       .seq = token->seq,
                       .token = token->pos,
                       .ratio = static_cast<float>(row.worst.ratio()),
                       .unsound = judgement.verdict == Verdict::kUnsound,
                       .same_bits = row.same_bits});
    if (row.worst.ratio() > judged.worst.ratio()) judged.worst = row.worst;
  }
  judged.coords = coords_in_row(output, judged.worst.index);
  judged_.push_back(std::move(judged));
}

void CheckLog::add_bits(const Tap& tap, std::string_view output, const Tensor& expected,
                        const Tensor& got) {
  const std::size_t first = checks_.size();
  for (std::int64_t r = 0; r < got.shape[0]; ++r) {
    const TokenInput* token = got.rank == 1 ? step_.of_row(r, got.shape[0]) : nullptr;
    add_exact(tap, output, token ? token->seq : static_cast<std::int32_t>(r),
              token ? token->pos : -1, same_bits(expected, got, r, r + 1));
  }
  close(tap, output, got, first);
}

void CheckLog::add_cache(const Tap& tap, std::string_view output, const KvWrite& op,
                         const Tensor& expected, const Tensor& got) {
  const std::size_t first = checks_.size();
  const KvLayout layout = kv_layout(got, op.pages);
  std::map<std::pair<std::int32_t, std::int64_t>, bool> slots;
  for (const TokenInput& token : step_.all) slots[{token.seq, token.pos}] = true;
  const Tensor rows = got.reshape({got.rows(), got.cols()});
  const Tensor expected_rows = expected.reshape({got.rows(), got.cols()});
  for (std::int64_t r = 0; r < rows.shape[0]; ++r) {
    if (!same_bits(expected_rows, rows, r, r + 1)) slots[owner(layout, op.pages, r)] = false;
  }
  for (const auto& [slot, same] : slots) add_exact(tap, output, slot.first, slot.second, same);
  close(tap, output, got, first);
}

void CheckLog::add_exact(const Tap& tap, std::string_view output, std::int32_t seq,
                         std::int64_t token, bool same_bits) {
  checks_.push_back({.tap = tap,
                     .output = output,
                     .seq = seq,
                     .token = token,
                     .ratio = same_bits ? 0 : kInfinity,
                     .same_bits = same_bits});
}

// The checks from `first` on are those of one output.
void CheckLog::close(const Tap& tap, std::string_view output, const Tensor& got,
                     std::size_t first) {
  const bool same = std::all_of(checks_.begin() + static_cast<std::ptrdiff_t>(first), checks_.end(),
                                [](const Check& c) { return c.same_bits; });
  judged_.push_back({.tap = tap,
                     .output = output,
                     .shape = {got.dims().begin(), got.dims().end()},
                     .contract = {},
                     .verdict = same ? Verdict::kPass : Verdict::kFail,
                     .n_checks = checks_.size() - first});
}

void note_unsound(std::vector<Unsound>& list, const Tap& tap, const Judgement& judgement,
                  const TokenInput& first) {
  auto known = std::find_if(list.begin(), list.end(), [&](const Unsound& u) {
    return u.tap.name == tap.name && u.tap.layer == tap.layer && u.output == judgement.output;
  });
  if (known == list.end()) {
    list.push_back({.tap = tap, .output = judgement.output});
    known = list.end() - 1;
  }
  if (known->n++ > 0 && judgement.spread.median <= known->spread.median) return;
  known->seq = first.seq;
  known->token = first.pos;
  known->spread = judgement.spread;
}

}  // namespace qwen::crosscheck
