// Cutting a failed op down to the rows that show the failure.
#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "core/crosscheck/bundle.h"
#include "core/kv_layout.h"

namespace qwen::crosscheck {
namespace {

using Indices = std::vector<std::int64_t>;

constexpr std::size_t kMaxRows = 8;
// Columns of a Gemm's output: at most so many that failed, and others to compare them with.
constexpr std::size_t kMaxFailedColumns = 56;
constexpr std::uint64_t kOtherColumns = 8;

// Of an output: what an index of its outermost dimension stands for.
std::int64_t row_size(const Tensor& output) { return output.size() / output.shape[0]; }

// Rows with failed elements: first that of the divergence, then the others by rising index.
Indices failed_rows(const Evidence& evidence) {
  Indices rows;
  std::set<std::int64_t> all;
  if (const auto* op = std::get_if<Sample>(&evidence.inputs)) {
    // What was seen has a row for each sequence instead.
    const std::int64_t failed = evidence.judgements[evidence.output()].first.index /
                                row_size(evidence.got[evidence.output()]);
    for (std::int64_t r = 0; r < op->seq.size(); ++r) {
      const bool is_first = (evidence.divergence.output == "seen" ? op->seq.i32()[r] : r) == failed;
      rows.insert(is_first ? rows.begin() : rows.end(), r);
    }
    return rows;
  }
  for (std::size_t i = 0; i < evidence.got.size(); ++i) {
    const Judgement& j = evidence.judgements[i];
    const std::int64_t size = row_size(evidence.got[i]);
    if (j.output == evidence.divergence.output) rows.push_back(j.first.index / size);
    for (const std::int64_t element : j.failed) all.insert(element / size);
  }
  for (const std::int64_t row : all) {
    if (row != rows.front()) rows.push_back(row);
  }
  return rows;
}

// Changes an op into that of some of its rows.
class Cutter {
 public:
  Cutter(const Evidence& evidence, Bundle& bundle)
      : evidence_(evidence), bundle_(bundle), memory_(bundle.memory), rows_(bundle.rows) {}

  void operator()(Embed& op) {
    // Each row of the table with the one after it, which is what an index that is too high reads.
    std::set<std::int64_t> used;
    for (const std::int64_t r : rows_) {
      const std::int64_t id = op.ids.i32()[r];
      used.insert({id, (id + 1) % op.table.shape[0]});
    }
    const Indices kept(used.begin(), used.end());
    token_rows(op);
    renumber(op.ids, kept);
    op.table = gathered(op.table, kept);
  }
  void operator()(Gemm& op) {
    choose_columns(op);
    token_rows(op);
    op.weight = gathered(op.weight, bundle_.columns);
    op.out = columns_of(op.out);
  }
  void operator()(KvWrite& op) {
    const auto in_kept_page = [&](std::int64_t t) {
      return std::binary_search(rows_.begin(), rows_.end(), page_of(op, t, op.pos.i32()[t]));
    };
    Indices tokens;
    for (std::int64_t t = 0; t < op.pos.size(); ++t) {
      if (in_kept_page(t)) tokens.push_back(t);
    }
    if (tokens.empty()) {  // all kept pages are wrongly written to
      tokens.push_back(0);
      const std::int64_t page = page_of(op, 0, op.pos.i32()[0]);
      rows_.insert(std::lower_bound(rows_.begin(), rows_.end(), page), page);
    }
    for (Tensor* t : {&op.k, &op.v, &op.pos, &op.seq}) *t = gathered(*t, tokens);
    op.k_center = memory_.copy(op.k_center);
    keep_pages(op, rows_);
  }
  void operator()(Attention& op) {
    std::set<std::int64_t> pages;
    for (const std::int64_t t : rows_) {
      for (std::int64_t pos = 0; pos <= op.pos.i32()[t]; pos += op.k_cache.shape[2]) {
        pages.insert(page_of(op, t, pos));
      }
    }
    for (Tensor* t : {&op.out, &op.lse, &op.q, &op.pos, &op.seq}) *t = gathered(*t, rows_);
    keep_pages(op, {pages.begin(), pages.end()});
  }
  // Each row becomes a sequence of its own.
  void operator()(Sample& op) {
    for (const std::int64_t r : rows_) seqs_.push_back(op.seq.i32()[r]);
    for (Tensor* t : {&op.out, &op.logit, &op.logits, &op.seq, &op.pos}) *t = gathered(*t, rows_);
    for (Tensor* t : {&op.seen, &op.params}) *t = gathered(*t, seqs_);
    for (std::int64_t i = 0; i < op.seq.size(); ++i) {
      op.seq.i32()[i] = static_cast<std::int32_t>(i);
    }
  }
  void operator()(TakeRows& op) {
    std::set<std::int64_t> used;
    for (const std::int64_t r : rows_) used.insert(op.rows.i32()[r]);
    const Indices kept(used.begin(), used.end());
    op.out = gathered(op.out, rows_);
    op.rows = gathered(op.rows, rows_);
    renumber(op.rows, kept);
    op.x = gathered(op.x, kept);
  }
  template <class T>
  void operator()(T& op) {
    token_rows(op);
    for (const Operand& operand : op.io()) {
      if (operand.access == Access::kConstant) *operand.tensor = memory_.copy(*operand.tensor);
    }
  }

  // After the op, which may need more rows than were asked for.
  void cut_outputs() {
    for (std::size_t i = 0; i < evidence_.got.size(); ++i) {
      const bool by_seqs = evidence_.judgements[i].output == "seen";
      bundle_.got.push_back(gathered(evidence_.got[i], by_seqs ? seqs_ : rows_));
    }
    if (!bundle_.columns.empty()) bundle_.got[0] = columns_of(bundle_.got[0]);
  }

 private:
  Tensor gathered(const Tensor& t, const Indices& rows) {
    std::vector<std::int64_t> dims(t.dims().begin(), t.dims().end());
    dims[0] = static_cast<std::int64_t>(rows.size());
    const Tensor kept = memory_.take(t.dtype, dims);
    std::byte* to = kept.data;
    for (const std::int64_t row : rows) {
      const Tensor from = t.slice(row, row + 1);
      std::memcpy(to, from.data, from.bytes());
      to += from.bytes();
    }
    return kept;
  }

  template <class T>
  void token_rows(T& op) {
    for (const Operand& operand : op.io()) {
      if (operand.access != Access::kConstant) *operand.tensor = gathered(*operand.tensor, rows_);
    }
  }

  // The indices, which are those of `kept` rows, become their places among them.
  static void renumber(const Tensor& indices, const Indices& kept) {
    for (std::int64_t i = 0; i < indices.size(); ++i) {
      const auto place = std::lower_bound(kept.begin(), kept.end(), indices.i32()[i]);
      indices.i32()[i] = static_cast<std::int32_t>(place - kept.begin());
    }
  }

  template <class T>
  static std::int64_t page_of(const T& op, std::int64_t token, std::int64_t pos) {
    const KvLayout layout = kv_layout(op.k_cache, op.pages);
    return kv_offset(layout, op.pages.i32(), op.seq.i32()[token], 0, pos, 0) / row_size(op.k_cache);
  }

  template <class T>
  void keep_pages(T& op, const Indices& kept) {
    op.k_cache = gathered(op.k_cache, kept);
    op.v_cache = gathered(op.v_cache, kept);
    op.pages = memory_.copy(op.pages);
    for (std::int64_t i = 0; i < op.pages.size(); ++i) {
      std::int32_t& page = op.pages.i32()[i];
      const auto place = std::lower_bound(kept.begin(), kept.end(), page);
      const bool is_kept = place != kept.end() && *place == page;
      page = is_kept ? static_cast<std::int32_t>(place - kept.begin()) : -1;
    }
  }

  void choose_columns(const Gemm& op) {
    const std::int64_t n = op.out.cols();
    const std::size_t decoded = info(op.weight.dtype).minima_of_block == nullptr ? 1 : 2;
    const std::size_t bytes = op.weight.row_bytes() + decoded * sizeof(float) * op.weight.cols();
    const std::size_t most =
        std::clamp<std::size_t>(kMaxBundleBytes / 2 / bytes, 1, kMaxFailedColumns);
    const Judgement& j = evidence_.judgements[0];
    std::set<std::int64_t> columns = {j.first.index % n};
    for (const std::int64_t element : j.failed) {
      if (columns.size() == most) break;
      if (std::binary_search(rows_.begin(), rows_.end(), element / n)) columns.insert(element % n);
    }
    for (std::uint64_t k = 0; k < kOtherColumns; ++k) columns.insert(scattered(k, n));
    bundle_.columns.assign(columns.begin(), columns.end());
  }

  Tensor columns_of(const Tensor& t) {
    const Tensor kept =
        memory_.take(t.dtype, {t.shape[0], static_cast<std::int64_t>(bundle_.columns.size())});
    for (std::int64_t i = 0; i < kept.size(); ++i) {
      const std::int64_t column = bundle_.columns[static_cast<std::size_t>(i % kept.cols())];
      kept.f32()[i] = t.f32()[i / kept.cols() * t.cols() + column];
    }
    return kept;
  }

  const Evidence& evidence_;
  Bundle& bundle_;
  Scratch& memory_;
  Indices& rows_;
  Indices seqs_;  // of a Sample's rows
};

Bundle cut_to(const Evidence& evidence, Indices rows) {
  std::sort(rows.begin(), rows.end());
  Bundle bundle{.op = evidence.inputs,
                .contracts = evidence.contracts,
                .divergence = evidence.divergence,
                .rows = std::move(rows)};
  Cutter cutter(evidence, bundle);
  std::visit(cutter, bundle.op);
  cutter.cut_outputs();
  return bundle;
}

// Of all files: inputs, decoded too if they are blocks; and of each output the value that came out,
// the right one, the bound, and the number of each element that failed.
std::size_t stored_bytes(const Bundle& bundle) {
  std::size_t total = 0;
  Op op = bundle.op;
  for (const Operand& operand : operands(op)) {
    const Tensor& t = *operand.tensor;
    if (operand.access != Access::kWrite) total += t.bytes();
    if (operand.access == Access::kConstant) total += sizeof(float) * t.size();
  }
  for (const Tensor& t : bundle.got) {
    total += 2 * t.bytes() + t.size() * (sizeof(double) + sizeof(std::int32_t));
  }
  return total;
}

}  // namespace

std::optional<Bundle> cut(const Evidence& evidence, Backend& reference) {
  const Op& op = evidence.inputs;
  if (std::holds_alternative<Advance>(op)) return {};
  const Indices rows = failed_rows(evidence);
  for (std::size_t n = std::min(rows.size(), kMaxRows); n > 0; n /= 2) {
    Bundle bundle = cut_to(evidence, {rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(n)});
    if (stored_bytes(bundle) > kMaxBundleBytes) continue;
    judge_by(reference, bundle);
    return bundle;
  }
  return {};
}

}  // namespace qwen::crosscheck
