// Shadow: watches a path while it runs, brings each op's inputs over as the path has them, computes
// the op from them by an oracle, and judges what the path made of them. So every op is judged by
// itself: a fault shows where it is, and what follows from it is judged by the wrong inputs that it
// got. The keys and values are compared bit for bit with a ledger after every write, and what an op
// reads with what was written for it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/backend.h"
#include "core/crosscheck/attest.h"
#include "core/crosscheck/cause.h"
#include "core/crosscheck/checks.h"
#include "core/crosscheck/divergence.h"
#include "core/crosscheck/hand_over.h"
#include "core/crosscheck/judge.h"
#include "core/crosscheck/sides.h"
#include "core/session.h"

namespace qwen::crosscheck {

// The worst element that passed.
struct Worst {
  Tap tap;
  std::string_view output;
  Element element;
};

// How near an output came to its bounds over a whole run: the largest ratio of all layers and
// tokens.
struct Nearness {
  std::string_view tap;
  std::string_view output;
  double ratio = 0;
  std::int64_t n_elements = 0;
  // The bounds are those of another computation than the one that runs: they would let a fault of a
  // hundred times its error through. Equal bits say nothing of their bounds, nor do few elements.
  bool loose() const { return ratio > 0 && ratio < 0.01 && n_elements >= 10'000; }
};

struct ShadowResult {
  std::int64_t n_checks = 0;    // outputs judged
  std::int64_t n_elements = 0;  // and their elements
  std::int64_t n_unsound = 0;   // outputs whose bounds say nothing
  std::vector<Unsound> unsound_outputs = {};
  Worst worst;
  std::vector<Nearness> loose = {};  // outputs whose contracts are
  // In the order in which they happened: every failed output of every op.
  std::vector<Divergence> divergences;
  // Of all outputs, if asked for.
  std::vector<Judged> judged = {};
  std::vector<Check> checks = {};
};

// A failed op as it was judged. What it refers to lives as long as the call that hands it on.
struct Evidence {
  // In host memory, as they were before the op; rounded as the path does, but for what the first
  // contract still has to say of it.
  const Op& inputs;
  const std::vector<Tensor>& got;            // what the path left in its outputs, in order
  const std::vector<Contract>& contracts;    // the bound is the sum of theirs
  const std::vector<Judgement>& judgements;  // of the outputs, in order
  const Divergence& divergence;  // of the first of them that failed; its cause is not known yet

  // Which of the outputs that is.
  std::size_t output() const;
};
using KeepEvidence = std::function<void(const Evidence&)>;
using Found = std::function<void(const Divergence&)>;

class Shadow : public Observer {
 public:
  // `detail`: every check is kept for the result. That costs time and memory. `found`, if there is
  // one, is called for the first divergence, before its cause is looked for; `keep` for the first
  // op of each tap's name that fails.
  explicit Shadow(const Sides& sides, bool detail = false, Found found = {}, KeepEvidence keep = {})
      : sides_(sides),
        found_(std::move(found)),
        keep_(std::move(keep)),
        arrivals_(sides.path),
        hypotheses_(sides),
        detail_(detail) {}

  // From now on ops are computed from the constants that the path has instead of those that were
  // found wrong: that has been reported, and must not hide what else is wrong with these ops.
  // `wrong` must outlive the shadow.
  void adopt(const std::vector<WrongConstant>& wrong) { wrong_ = &wrong; }

  // Others than ops have written to the path's memory.
  void forget_left() { hand_over_.forget(); }

  // Before a step of the path: the same step as the oracle's session recorded it, on its tensors
  // (its own weights, positions, page table, and a cache that becomes the ledger). Throws Error
  // (code "wrong_step") if that is not the step of `tokens`.
  void begin(const Plan& oracle_plan, std::span<const TokenInput> tokens);
  // Throws Error (code "plans_differ") if the path runs another op than the oracle recorded, or on
  // tensors of other shapes.
  void require_same(const Op& op, const Tap& tap) const;
  // As require_same(). Outputs of the path are poisoned, so that what is not written shows.
  void before(const Op& op, const Tap& tap) override;
  void after(const Op& op, const Tap& tap) override;
  // After the step. Throws if the path left out ops.
  void end();

  bool diverged() const { return !result_.divergences.empty(); }
  // With the causes of all divergences so far.
  ShadowResult result() const;

 private:
  // A layer's cache on both sides.
  struct Ledger {
    Tap tap;
    KvWrite theirs, ours;
  };

  void bring_inputs(const Op& path_op);
  void check_step() const;
  void adopt_constant(Tensor& own) const;
  void poison_outputs(const Op& path_op);
  void compare_given(const Operand& ours, const Tensor& got, const Tap& tap);
  // `got`: what `theirs`, an input of the path's op, holds.
  void compare_left(const Operand& theirs, const Tensor& got, const Tap& tap);
  // A copy of what the path has, there once await_reads() has returned.
  Tensor read_later(const Tensor& theirs);
  void await_reads();
  // As read_later().
  std::vector<Tensor> read_outputs(const Op& path_op);
  // `got` need not be there yet.
  void judge_outputs(const Op& path_op, const Tap& tap, const std::vector<Tensor>& got);
  // So far.
  Nearness& nearness(std::string_view tap, std::string_view output);
  void keep(const Judgement& judgement, const Tap& tap, const Contract& contract,
            const Tensor& expected, const Tensor& got);
  void diverges(const Judgement& judgement, const Op& op, const Tap& tap, const Tensor& output);

  Sides sides_;
  Found found_;
  KeepEvidence keep_;
  std::set<std::string_view> kept_;  // names of taps
  const std::vector<WrongConstant>* wrong_ = nullptr;
  Plan plan_;
  std::vector<TokenInput> tokens_;
  std::vector<std::size_t> rows_;  // of tokens_: those whose logits are wanted
  std::size_t next_ = 0;           // node of plan_
  Scratch scratch_;
  Scratch arrivals_;                          // what is read from the path
  std::optional<std::uint64_t> read_;         // the last that was not waited for
  std::optional<std::uint64_t> inputs_read_;  // the last of the current op's inputs
  // The current op: its inputs as the path has them, in scratch_, arrivals_ and the ledger.
  Op inputs_;
  struct Brought {
    std::size_t operand;
    Tensor got;
  };
  std::vector<Brought> given_;  // what the path was given for it
  std::vector<Brought> made_;   // what other ops of the path made for it
  HandOver hand_over_;
  std::vector<Ledger> ledgers_;  // of the step's layers
  Hypotheses hypotheses_;
  ShadowResult result_;
  std::vector<Nearness> nearness_;  // of each output that has bounds
  std::vector<int> causes_;         // of result_.divergences: classes of hypotheses_
  bool detail_;
  CheckLog log_;
};

}  // namespace qwen::crosscheck
