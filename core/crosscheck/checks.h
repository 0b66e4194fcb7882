// Checks: what a shadow run found out about every output of every op, token by token, for the
// reports that show more than what failed.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "core/contract.h"
#include "core/crosscheck/judge.h"
#include "core/session.h"

namespace qwen::crosscheck {

// One token's row of one output of one op.
struct Check {
  Tap tap;
  // The operand. Of "kv_ledger", which stands for a layer's cache at the end of a step, too.
  std::string_view output;
  std::int32_t seq = 0;    // -1: a cache page that no sequence has
  std::int64_t token = 0;  // of the sequence: its position; -1: no token's, as a page table's row
  float ratio = 0;         // of Row::worst; of what is compared bit for bit 0 or infinite
  bool unsound = false;    // of the whole output
  bool same_bits = true;
};

// One output of one op in one step.
struct Judged {
  Tap tap;
  std::string_view output;
  std::vector<std::int64_t> shape;
  std::optional<Contract> contract;  // of the path; none: compared bit for bit
  Verdict verdict = Verdict::kPass;
  Element worst = {};
  std::vector<std::int64_t> coords = {};  // of the worst in its row
  double spread = 0;                      // D, where all passed: Spread::median
  std::size_t n_checks = 0;               // its checks follow on those of the output before it
};

// An output whose bounds are too wide to say anything: of all steps the one with the widest.
struct Unsound {
  Tap tap;
  std::string_view output;
  std::int32_t seq = 0;    // of the step's first row
  std::int64_t token = 0;  // as seq: its position
  Spread spread = {};
  std::int64_t n = 0;  // of this kind
};

// The tokens of a step, and which of them have rows in the tensors behind TakeRows.
struct StepTokens {
  std::span<const TokenInput> all;
  std::span<const std::size_t> wanted;  // of `all`: those whose logits are wanted
  // Of row r of a tensor with n_rows of them. Null beyond the step's tokens.
  const TokenInput* of_row(std::int64_t r, std::int64_t n_rows) const;
};

class CheckLog {
 public:
  // Of the checks that follow. What it refers to must outlive them.
  void begin(const StepTokens& step) { step_ = step; }
  // `judgement` with its rows.
  void add(const Tap& tap, const Judgement& judgement, const Contract& contract,
           const Tensor& output);
  // Compared bit for bit, a row per token, or for the page table per sequence.
  void add_bits(const Tap& tap, std::string_view output, const Tensor& expected, const Tensor& got);
  // A whole cache: a check for each token of the step, and one for each other slot that differs.
  // `op` lies in host memory.
  void add_cache(const Tap& tap, std::string_view output, const KvWrite& op, const Tensor& expected,
                 const Tensor& got);

  const std::vector<Judged>& judged() const { return judged_; }
  const std::vector<Check>& checks() const { return checks_; }

 private:
  void add_exact(const Tap& tap, std::string_view output, std::int32_t seq, std::int64_t token,
                 bool same_bits);
  void close(const Tap& tap, std::string_view output, const Tensor& got, std::size_t first);

  StepTokens step_;
  std::vector<Judged> judged_;
  std::vector<Check> checks_;
};

// Notes an output of kUnsound in the list that has one entry per tap and output.
void note_unsound(std::vector<Unsound>& list, const Tap& tap, const Judgement& judgement,
                  const TokenInput& first);

}  // namespace qwen::crosscheck
