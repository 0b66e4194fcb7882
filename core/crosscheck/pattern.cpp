#include "core/crosscheck/pattern.h"

#include <algorithm>
#include <set>

namespace qwen::crosscheck {
namespace {

std::string span_text(const char* what, std::int64_t first, std::int64_t last) {
  std::string text = std::string(what) + (first == last ? " " : "s ") + std::to_string(first);
  if (last != first) text += ".." + std::to_string(last);
  return text + " only";
}

// "period 64" if all columns have the same remainder.
std::string period_of(const std::set<std::int64_t>& columns) {
  if (columns.size() < 3) return {};
  for (const std::int64_t period : {128, 64, 32, 16}) {
    const std::int64_t rest = *columns.begin() % period;
    if (std::all_of(columns.begin(), columns.end(),
                    [&](std::int64_t c) { return c % period == rest; })) {
      return "every " + std::to_string(period) + "th column from " + std::to_string(rest) +
             ": the edge of a tile";
    }
  }
  return {};
}

std::string columns_text(const std::set<std::int64_t>& columns, std::size_t n_rows,
                         std::int64_t per_row) {
  const std::int64_t first = *columns.begin();
  const std::int64_t last = *columns.rbegin();
  if (columns.size() == 1) {
    return "column " + std::to_string(first) +
           (n_rows > 1 ? " at every token: one row of a weight" : " only");
  }
  const bool contiguous = static_cast<std::int64_t>(columns.size()) == last - first + 1;
  if (contiguous && last == per_row - 1 && first > 0) {
    return "the last " + std::to_string(columns.size()) + " columns only";
  }
  return period_of(columns);
}

}  // namespace

std::string pattern_of(const Tensor& output, std::span<const std::int64_t> failed,
                       std::span<const std::int32_t> pos) {
  if (output.rank < 2 || failed.empty() || output.rank == 4) return {};
  if (failed.size() == 1) return "a single element";
  const std::int64_t per_row = output.size() / output.shape[0];
  const std::int64_t per_head = output.rank == 3 ? output.shape[2] : 1;
  std::set<std::int64_t> rows, columns, heads;
  for (const std::int64_t i : failed) {
    rows.insert(i / per_row);
    columns.insert(i % per_row);
    heads.insert(i % per_row / per_head);
  }
  std::string text;
  const std::int64_t n_heads = per_row / per_head;
  const bool some_heads = output.rank == 3 && static_cast<std::int64_t>(heads.size()) < n_heads;
  if (some_heads &&
      *heads.rbegin() - *heads.begin() + 1 == static_cast<std::int64_t>(heads.size())) {
    text = span_text("head", *heads.begin(), *heads.rbegin());
  } else {
    text = columns_text(columns, rows.size(), per_row);
  }
  if (static_cast<std::int64_t>(pos.size()) != output.shape[0]) return text;
  std::int32_t least = pos[static_cast<std::size_t>(*rows.begin())];
  for (const std::int64_t r : rows) least = std::min(least, pos[static_cast<std::size_t>(r)]);
  const auto n_late =
      std::count_if(pos.begin(), pos.end(), [&](std::int32_t p) { return p >= least; });
  if (least > 1 && n_late == static_cast<std::ptrdiff_t>(rows.size()) && rows.size() < pos.size()) {
    text +=
        (text.empty() ? "" : ", ") + std::string("from position ") + std::to_string(least) + " on";
  }
  return text;
}

}  // namespace qwen::crosscheck
