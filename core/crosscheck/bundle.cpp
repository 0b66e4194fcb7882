#include "core/crosscheck/bundle.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>

#include "core/crosscheck/placed_op.h"
#include "core/crosscheck/rounded.h"
#include "core/error.h"
#include "core/int8.h"

namespace qwen::crosscheck {
namespace {

void require(bool holds, const std::string& what) {
  if (!holds) throw Error({.code = "invalid_op", .message = what});
}

void require_indices(const Tensor& indices, std::int64_t end, const std::string& what) {
  for (std::int64_t i = 0; i < indices.size(); ++i) {
    const std::int32_t index = indices.i32()[i];
    require(index >= 0 && index < end, what + "[" + std::to_string(i) + "] is " +
                                           std::to_string(index) + ", it must be below " +
                                           std::to_string(end));
  }
}

// Whether no index of a valid op points outside its tensor.
struct IndexCheck {
  void operator()(const Embed& op) const { require_indices(op.ids, op.table.shape[0], "ids"); }
  void operator()(const TakeRows& op) const { require_indices(op.rows, op.x.shape[0], "rows"); }
  void operator()(const Sample& op) const { require_indices(op.seq, op.params.shape[0], "seq"); }
  void operator()(const KvWrite& op) const { check_cache(op, false); }
  void operator()(const Attention& op) const { check_cache(op, true); }
  template <class T>
  void operator()(const T&) const {}

 private:
  template <class T>
  static void check_cache(const T& op, bool all_before) {
    const std::int64_t page_tokens = op.k_cache.shape[2];
    const std::int64_t per_seq = op.pages.shape[1];
    require_indices(op.seq, op.pages.shape[0], "seq");
    require_indices(op.pos, per_seq * page_tokens, "pos");
    for (std::int64_t t = 0; t < op.pos.size(); ++t) {
      const std::int64_t last = op.pos.i32()[t] / page_tokens;
      const Tensor row = op.pages.slice(op.seq.i32()[t], op.seq.i32()[t] + 1)
                             .reshape({per_seq})
                             .slice(all_before ? 0 : last, last + 1);
      require_indices(row, op.k_cache.shape[0], "pages");
    }
  }
};

void check(const Bundle& bundle) {
  Op op = bundle.op;
  for (const Operand& operand : operands(op)) {
    require(operand.tensor->size() > 0, std::string(operand.name) + " is empty");
  }
  validate(op);
  std::visit(IndexCheck(), op);
  require(is_bit_exact(op) || !bundle.contracts.empty(), "there is no contract");
  for (const Contract& c : bundle.contracts) {
    const auto least = std::min(
        {c.input_unit, c.weight_unit, c.probability_unit, c.input_step, c.probability_step});
    require(std::min({c.sum_depth, c.value_sum_depth, c.sum_block}) >= 0 && least >= 0,
            "a contract is negative");
    const auto* gemm = std::get_if<Gemm>(&op);
    require(c.int8_fine_from == 0 || (gemm != nullptr && gemm->x.cols() % kInt8Block == 0),
            "a contract rounds what cannot be rounded to integers");
  }
  const std::vector<Tensor> outputs = written(op);
  const bool fits = std::equal(
      outputs.begin(), outputs.end(), bundle.got.begin(), bundle.got.end(),
      [](const Tensor& a, const Tensor& b) { return a.dtype == b.dtype && a.shape == b.shape; });
  require(fits, "what the path left is not of the outputs' types and shapes");
}

// As the path computes it.
Rounded rounded_op(const Bundle& bundle, Backend& reference, Scratch& scratch) {
  if (bundle.contracts.empty()) return {bundle.op, {}};
  return rounded(bundle.op, bundle.contracts.front(), reference, scratch);
}

std::vector<std::vector<double>> tolerances_of(const Bundle& bundle, const Op& op) {
  if (is_bit_exact(op)) return {};
  std::vector<std::vector<double>> sums(bundle.got.size());
  const auto add = [](std::vector<double>& sum, const std::vector<double>& more) {
    sum.resize(more.size());
    std::transform(sum.begin(), sum.end(), more.begin(), sum.begin(), std::plus<>());
  };
  for (const Contract& contract : bundle.contracts) {
    const Tolerance t = tolerance(op, contract, bundle.expected.front(), bundle.expected.back());
    add(sums.front(), t.out);
    if (sums.size() > 1) add(sums[1], t.lse);
  }
  return sums;
}

// What a backend in host memory makes of an op there.
std::vector<Tensor> computed(const Op& inputs, Backend& backend, Scratch& scratch) {
  Op op = copy_of(inputs, scratch);
  backend(op);
  return written(op);
}

}  // namespace

void judge_by(Backend& reference, Bundle& bundle) {
  check(bundle);
  const Op inputs = rounded_op(bundle, reference, bundle.memory).op;
  bundle.expected = computed(inputs, reference, bundle.memory);
  bundle.tolerances = tolerances_of(bundle, inputs);
  bundle.judgements = judge(inputs, bundle.expected, bundle.got, bundle.contracts);
}

const Judgement& judgement(const Bundle& bundle) {
  const auto named =
      std::find_if(bundle.judgements.begin(), bundle.judgements.end(),
                   [&](const Judgement& j) { return j.output == bundle.divergence.output; });
  return named == bundle.judgements.end() ? bundle.judgements.front() : *named;
}

Rerun run_again(const Bundle& bundle, Backend& backend, Backend& reference) {
  const PlacedOp placed(backend, bundle.op);
  backend(placed.op(), bundle.divergence.tap);
  const ReadOp done(placed);
  Scratch scratch;
  const Rounded inputs = rounded(bundle.op, backend.contract(placed.op()), reference, scratch);
  Rerun rerun;
  bool failed = false;
  for (const Judgement& j : judge(inputs.op, computed(inputs.op, reference, scratch),
                                  done.outputs(), {inputs.contract})) {
    rerun.ratio = std::max(rerun.ratio, j.worst.ratio());
    failed = failed || j.verdict == Verdict::kFail;
  }
  const auto same_bits = [](const Tensor& a, const Tensor& b) {
    return std::memcmp(a.data, b.data, a.bytes()) == 0;
  };
  const bool same =
      std::equal(done.outputs().begin(), done.outputs().end(), bundle.got.begin(), same_bits);
  if (failed) rerun.again = same ? Again::kSame : Again::kOther;
  return rerun;
}

}  // namespace qwen::crosscheck
