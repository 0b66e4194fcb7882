// What a path runs as one is judged by its expansion: the ops that it stands for, computed by the
// host (Sides) from the very inputs that the run has; the oracle judges the same ops one by one.
// Where the path promises the same bits as one by one, those that it leaves so itself decide. And
// what a path has made ready to be run again and again must leave the bits that the same launches
// leave one by one.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "core/crosscheck/error_chain.h"
#include "core/crosscheck/shadow.h"

namespace qwen::crosscheck {

struct FusedResult {
  std::int64_t n_runs = 0;      // judged
  std::int64_t n_elements = 0;  // of what they keep
  // Not judged, and no pass: runs of other bits whose operands are rounded, and outputs for which
  // the bounds of the chain are too wide. The free run covers them.
  std::int64_t n_coarse = 0;
  std::int64_t n_wide = 0;
  std::int64_t n_programs = 0;  // runs of programs, compared bit for bit
  std::int64_t n_queued = 0;    // tokens (generation.h)
};

class FusedCheck {
 public:
  explicit FusedCheck(const Sides& sides) : sides_(sides), norms_(sides.host) {}

  // Runs a step on the path as it is run unobserved. `path` and `oracle` are recordings of it on
  // both sides; the oracle's cache stays as it is. Returns what diverges, with its cause.
  std::vector<Divergence> step(const Plan& path, const Plan& oracle,
                               std::span<const TokenInput> tokens);

  const FusedResult& result() const { return result_; }

 private:
  // A program of the path, and the plan that it was made from.
  struct Ready {
    Plan plan;
    std::unique_ptr<Program> program;
  };

  void judge_run(const FusedRun& run, const Plan& path, const Plan& oracle);
  // For a run of the same bits.
  void compare_run(const FusedRun& run, const Plan& path);
  // Runs its ops on the host. Returns them; a KvWrite works on a copy of the cache.
  Plan expand(const FusedRun& run, const Plan& oracle, ErrorChain& path_errors,
              ErrorChain& host_errors);
  void compare(const Tensor& theirs, const Tensor& ours, std::vector<double> bounds,
               const Node& node, const FusedRun& run, const Plan& path);
  void compare_cache(const KvWrite& theirs, const KvWrite& ours, const Node& node,
                     const FusedRun& run, const Plan& path, const std::vector<double>& k_bounds,
                     const std::vector<double>& v_bounds);
  void compare_program(const Plan& path);
  // A copy of what the path has, in scratch_.
  Tensor copied(const Tensor& theirs);
  void diverges(const Judgement& judgement, const Node& node, const Tensor& output, Cause cause);

  Sides sides_;
  RowNorms norms_;
  Scratch scratch_;
  std::vector<TokenInput> tokens_;
  std::vector<Divergence> found_;           // in the step
  std::map<std::int64_t, Ready> programs_;  // by tokens of the step
  FusedResult result_;
};

}  // namespace qwen::crosscheck
