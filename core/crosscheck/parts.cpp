#include "core/crosscheck/parts.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "core/attention_tolerance.h"
#include "core/crosscheck/scratch.h"

namespace qwen::crosscheck {
namespace {

// Parts of an output: enough for the threads of a large machine.
constexpr std::int64_t kParts = 32;
// Elements of a part, at most, and of a product at least: those whose bounds take as long as it
// takes to wake a thread.
constexpr std::int64_t kMostElements = 4096;
constexpr std::int64_t kLeastElements = 64;
// Failed elements of a part that are looked at by their own bounds, at first.
constexpr std::int64_t kPartExact = 16;
// Keys that a thread decodes at a time.
constexpr std::int64_t kKeysAtOnce = 64;

// The op on rows [begin, end) of `n_rows` alone: those tokens of the step.
Op rows_of(const Op& op, std::int64_t n_rows, std::int64_t begin, std::int64_t end) {
  Op rows = op;
  for (const Operand& operand : operands(rows)) {
    Tensor& t = *operand.tensor;
    const bool is_shared = operand.access == Access::kConstant || is_cache(operand) ||
                           operand.name == "pages" ||
                           (std::holds_alternative<TakeRows>(op) && operand.name == "x");
    if (!is_shared && t.rank > 0 && t.shape[0] == n_rows) t = t.slice(begin, end);
  }
  return rows;
}

std::vector<Tensor> slices(const std::vector<Tensor>& tensors, std::int64_t begin,
                           std::int64_t end) {
  std::vector<Tensor> rows;
  for (const Tensor& t : tensors) rows.push_back(t.slice(begin, end));
  return rows;
}

// Of an output of n elements.
void add_samples(Part& part, std::size_t output, std::int64_t n, std::uint64_t sample) {
  Part::Output& own = part.outputs[output];
  for (std::uint64_t k = 0; k < std::min(kSampledFirst, static_cast<std::uint64_t>(n)); ++k) {
    const std::int64_t at = scattered(sample + k, n);
    if (own.elements.holds(at)) own.sampled.push_back(part.bounds.at(output, at));
  }
}

// An op's outputs as units that are not cut: tokens, a token's heads where the heads are
// independent of each other, or the elements of a product. Each output has equally many.
class Cutter {
 public:
  Cutter(const Op& op, const std::vector<Tensor>& expected, const std::vector<Tensor>& got,
         const std::vector<Contract>& contracts, const JudgeOptions& options)
      : op_(op), expected_(expected), got_(got), contracts_(contracts), options_(options) {
    const Tensor& out = expected[0];
    const auto* attention = std::get_if<Attention>(&op);
    if (attention != nullptr) attention_.emplace(*attention, contracts, out, expected[1]);
    n_units_ = out.shape[0];
    if (!options.by_row && attention != nullptr) n_units_ = expected[1].size();
    if (!options.by_row && std::holds_alternative<Gemm>(op)) n_units_ = out.size();
    const std::int64_t unit =
        std::max<std::int64_t>(1, out.size() / std::max<std::int64_t>(1, n_units_));
    const std::int64_t least =
        std::max<std::int64_t>(1, std::holds_alternative<Gemm>(op) ? kLeastElements / unit : 1);
    const std::int64_t most = std::max(least, kMostElements / unit);
    step_ = std::clamp(n_units_ / kParts, least, most);
  }

  std::vector<Part> judged() {
    if (attention_) {
      parallel_for(attention_->n_keys(), kKeysAtOnce,
                   [&](std::int64_t begin, std::int64_t end) { attention_->load(begin, end); });
    }
    std::vector<std::optional<Part>> parts(
        static_cast<std::size_t>((n_units_ + step_ - 1) / step_));
    parallel_for(static_cast<std::int64_t>(parts.size()), 1,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t p = begin; p < end; ++p) {
                     parts[static_cast<std::size_t>(p)] =
                         judged({p * step_, std::min(n_units_, (p + 1) * step_)});
                   }
                 });
    std::vector<Part> all;
    for (std::optional<Part>& part : parts) all.push_back(std::move(*part));
    return all;
  }

 private:
  void parallel_for(std::int64_t n, std::int64_t grain,
                    const std::function<void(std::int64_t, std::int64_t)>& f) const {
    if (options_.host != nullptr) {
      options_.host->parallel_for(n, grain, f);
    } else {
      f(0, n);
    }
  }

  Range elements(Range units, std::size_t output) const {
    const std::int64_t unit = expected_[output].size() / n_units_;
    return {units.begin * unit, units.end * unit};
  }

  Bounds bounds(Range units) const {
    if (const auto* gemm = std::get_if<Gemm>(&op_)) {
      return Bounds(GemmTolerance(*gemm, contracts_, expected_[0]));
    }
    Bounds::Firsts firsts = {};
    for (std::size_t n = 0; n < expected_.size(); ++n) firsts[n] = elements(units, n).begin;
    if (attention_) {
      const Range rows = elements(units, 1);
      return {attention_->rows(rows.begin, rows.end), firsts};
    }
    return {rows_of(op_, n_units_, units.begin, units.end),
            slices(expected_, units.begin, units.end), contracts_, firsts};
  }

  Part judged(Range units) const {
    Part part{bounds(units), {}};
    for (std::size_t n = 0; n < expected_.size(); ++n) {
      const Range own = elements(units, n);
      part.outputs.push_back(
          {own,
           judge_part(expected_[n], got_[n], part.bounds, n, own, kPartExact, options_.by_row),
           {}});
      add_samples(part, n, expected_[n].size(), options_.sample);
    }
    return part;
  }

  const Op& op_;
  const std::vector<Tensor>& expected_;
  const std::vector<Tensor>& got_;
  const std::vector<Contract>& contracts_;
  const JudgeOptions& options_;
  std::optional<AttentionTolerance> attention_;
  std::int64_t n_units_ = 0;
  std::int64_t step_ = 0;  // units of a part
};

}  // namespace

std::vector<Part> judged_parts(const Op& op, const std::vector<Tensor>& expected,
                               const std::vector<Tensor>& got,
                               const std::vector<Contract>& contracts,
                               const JudgeOptions& options) {
  return Cutter(op, expected, got, contracts, options).judged();
}

Part judged_whole(const Tensor& expected, const Tensor& got, std::vector<double> bounds) {
  Part part{Bounds({.out = std::move(bounds), .lse = {}}, {}), {}};
  const Range all{0, got.size()};
  part.outputs.push_back(
      {all, judge_part(expected, got, part.bounds, 0, all, Judgement::kMaxListed, false), {}});
  add_samples(part, 0, expected.size(), 0);
  return part;
}

}  // namespace qwen::crosscheck
