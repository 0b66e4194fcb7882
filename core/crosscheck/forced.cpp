#include "core/crosscheck/forced.h"

#include <cstring>

namespace qwen::crosscheck {
namespace {

// What earlier ops have made: values, the cache, the tokens seen.
bool is_computed(const Operand& operand) {
  const bool is_read = operand.access == Access::kRead || operand.access == Access::kReadWrite;
  return is_read && !is_given(operand);
}

}  // namespace

void Forced::begin(const Plan& oracle_plan) {
  plan_ = oracle_plan;
  next_ = 0;
}

void Forced::before(const Op& op, const Tap& tap) {
  shadow_.require_same(op, tap);
  scratch_.reset();
  Op theirs = op;
  const Operands to = operands(theirs);
  const Operands from = operands(plan_[next_].op);
  for (std::size_t i = 0; i < to.size(); ++i) {
    if (is_computed(from[i])) sides_.path.write(*to[i].tensor, from[i].tensor->data);
  }
  shadow_.forget_left();
  kept_ = copy_of(plan_[next_].op, scratch_);
  shadow_.before(op, tap);
}

void Forced::after(const Op& op, const Tap& tap) {
  shadow_.after(op, tap);
  // The shadow's ledger is the oracle's cache, and went on as the path has it.
  const Operands from = operands(kept_);
  const Operands to = operands(plan_[next_].op);
  for (std::size_t i = 0; i < to.size(); ++i) {
    if (!is_computed(from[i])) continue;
    std::memcpy(to[i].tensor->data, from[i].tensor->data, to[i].tensor->bytes());
  }
  sides_.oracle(plan_[next_++].op);
}

}  // namespace qwen::crosscheck
