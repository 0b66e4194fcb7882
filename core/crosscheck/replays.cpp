#include "core/crosscheck/replays.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/crosscheck/judge.h"
#include "core/crosscheck/rounded.h"
#include "core/kv_layout.h"

namespace qwen::crosscheck {
namespace {

constexpr int kRepeats = 4;
// Failed tokens that are run by themselves.
constexpr std::size_t kTokensAlone = 4;

// Whether the operand has a row for each token (or each row of logits) of the step.
bool has_rows(const Op& op, const Operand& operand) {
  return operand.access != Access::kConstant && !is_cache(operand) && operand.name != "pages" &&
         operand.name != "params" && operand.name != "seen" &&
         !(std::holds_alternative<TakeRows>(op) && operand.name == "x");
}

std::int64_t row_count(const Op& op) {
  Op copy = op;
  for (const Operand& operand : operands(copy)) {
    if (has_rows(op, operand)) return operand.tensor->shape[0];
  }
  return 0;
}

// The op for some of its tokens, in the given order.
Op of_rows(const Op& host, std::span<const std::int64_t> rows, Scratch& scratch) {
  Op op = copy_of(host, scratch);
  for (const Operand& operand : operands(op)) {
    if (!has_rows(op, operand)) continue;
    const Tensor all = *operand.tensor;
    Tensor& some = *operand.tensor;
    some.shape[0] = static_cast<std::int64_t>(rows.size());
    some = scratch.take(all.dtype, some.dims());
    const std::size_t bytes = all.bytes() / static_cast<std::size_t>(all.shape[0]);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      std::memcpy(some.data + r * bytes, all.data + static_cast<std::size_t>(rows[r]) * bytes,
                  bytes);
    }
  }
  return op;
}

// The rows of the failed elements, at most kTokensAlone.
std::vector<std::int64_t> failed_rows(const FailedOp& op) {
  const Tensor& output = op.got[op.output];
  const std::int64_t n_rows = row_count(op.inputs);
  std::vector<std::int64_t> rows;
  if (std::holds_alternative<KvWrite>(op.inputs)) {  // the elements say nothing about the token
    for (std::int64_t r = 0; r < n_rows; ++r) rows.push_back(r);
  } else {
    for (const std::int64_t i : op.failed) {
      const std::int64_t row = i / (output.size() / output.shape[0]);
      if (rows.empty() || rows.back() != row) rows.push_back(row);
    }
  }
  if (rows.size() > kTokensAlone) rows.resize(kTokensAlone);
  return rows;
}

bool all_finite(const std::vector<Tensor>& tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const Tensor& t) {
    return t.dtype != DType::kF32 ||
           std::all_of(t.f32(), t.f32() + t.size(), [](float v) { return std::isfinite(v); });
  });
}

std::int64_t different(const Tensor& a, const Tensor& b) { return compare_bits(a, b).n_failed; }

// Zero instead of not-a-number in the cache that the op reads.
void cleared(Op& op) {
  for (const Operand& operand : operands(op)) {
    if (!is_cache(operand)) continue;
    const Tensor& t = *operand.tensor;
    for (std::int64_t i = 0; i < t.size(); ++i) {
      if (!std::isfinite(cache_value(t, i))) store_cache_value(t, i, 0);
    }
  }
}

}  // namespace

std::vector<Tensor> Replays::run(const Op& host, const FailedOp& failed, std::uint32_t word) {
  Op op = host;
  Op path_op = failed.path_op;
  const Operands theirs = operands(path_op);
  const Operands ours = operands(op);
  std::vector<Buffer> buffers;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    Tensor& t = *ours[i].tensor;
    if (ours[i].access == Access::kConstant) {
      t = *theirs[i].tensor;
      continue;
    }
    const Tensor values = t;
    buffers.push_back(sides_.path.allocate(t.bytes()));
    t.data = buffers.back().get();
    if (ours[i].access != Access::kWrite) {
      sides_.path.write(t, values.data);
    } else {
      fill(sides_.path, t, word);
    }
  }
  {
    const ObservingScope unobserved(sides_.path, nullptr);
    sides_.path(op, failed.tap);
  }
  std::vector<Tensor> got;
  for (const Tensor& t : written(op)) {
    got.push_back(scratch_.take(t.dtype, t.dims()));
    sides_.path.read(got.back().data, t);
  }
  return got;
}

bool Replays::is_right(const Op& host, const std::vector<Tensor>& got) {
  const Rounded repeated = rounded(host, sides_.path.contract(host), sides_.host, scratch_);
  Op op = copy_of(repeated.op, scratch_);
  sides_.reference(op);
  const std::vector<Judgement> all = judge(repeated.op, written(op), got, {repeated.contract});
  return std::none_of(all.begin(), all.end(),
                      [](const Judgement& j) { return j.verdict == Verdict::kFail; });
}

bool Replays::is_right_for(const FailedOp& op, std::span<const std::int64_t> rows) {
  scratch_.reset();
  const Op some = of_rows(op.inputs, rows, scratch_);
  return is_right(some, run(some, op, kPoison));
}

std::optional<Cause> Replays::by_itself(const FailedOp& op) {
  scratch_.reset();
  std::vector<std::vector<Tensor>> runs;
  for (int i = 0; i < kRepeats; ++i) runs.push_back(run(op.inputs, op, kPoison));
  std::int64_t moved = 0;
  for (int i = 1; i < kRepeats; ++i) {
    for (std::size_t o = 0; o < runs[0].size(); ++o) moved += different(runs[0][o], runs[i][o]);
  }
  if (moved > 0) {
    return Cause{"the op gives other bits each time it runs",
                 std::to_string(kRepeats) + " runs on the same inputs differ in " +
                     std::to_string(moved) + " elements: a race, or memory that nobody set"};
  }
  if (!is_right(op.inputs, runs[0])) return std::nullopt;
  return Cause{"right when it runs by itself: its buffers overlap others', or it ran out of order",
               "the same inputs in buffers of their own give the right result, " +
                   std::to_string(kRepeats) + " times"};
}

std::optional<Cause> Replays::depends_on(const FailedOp& op) {
  scratch_.reset();
  if (!all_finite(op.got)) {
    Op clean = copy_of(op.inputs, scratch_);
    cleared(clean);
    if (all_finite(run(clean, op, 0))) {
      return Cause{"the op reads what was never written",
                   "finite once zeros stand in the place of poison"};
    }
    return Cause{"the op overflows", "not finite with zeros in the place of poison, too"};
  }
  const std::int64_t n_rows = row_count(op.inputs);
  if (n_rows < 2) return std::nullopt;
  const std::vector<std::int64_t> failed = failed_rows(op);
  if (std::all_of(failed.begin(), failed.end(),
                  [&](std::int64_t r) { return is_right_for(op, std::span(&r, 1)); })) {
    // The smallest step that is wrong: sizes are few, and a limit need not be a power of two.
    std::vector<std::int64_t> first = {0};
    while (static_cast<std::int64_t>(first.size()) < n_rows && is_right_for(op, first)) {
      first.push_back(static_cast<std::int64_t>(first.size()));
    }
    return Cause{
        "the tokens of a step disturb each other",
        "right for each token by itself, wrong for " + std::to_string(first.size()) + " at once"};
  }
  std::vector<std::int64_t> reversed;
  for (std::int64_t r = n_rows; r-- > 0;) reversed.push_back(r);
  if (failed.size() < static_cast<std::size_t>(n_rows) && is_right_for(op, reversed)) {
    return Cause{"the result depends on the token's place in the step",
                 "right with the tokens in reverse order"};
  }
  return std::nullopt;
}

}  // namespace qwen::crosscheck
