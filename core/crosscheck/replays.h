// Replays: an op that failed is run again on the path, by itself, on copies of its inputs and in
// other circumstances. What changes then says something about the cause that no formula can.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/crosscheck/scratch.h"
#include "core/crosscheck/sides.h"

namespace qwen::crosscheck {

struct Cause {
  std::string name = "unknown";
  // Why: how well a variant reproduces the path, or for an unknown one the nearest variants.
  std::string evidence;
};

// An op of the path that failed.
struct FailedOp {
  const Op& inputs;   // in host memory, as before it ran, with the file's constants
  const Op& path_op;  // as the path ran it
  const Tap& tap;
  const std::vector<Tensor>& got;           // its outputs, in host memory
  std::size_t output;                       // the first of them that failed
  const std::vector<std::int64_t>& failed;  // elements of it
};

class Replays {
 public:
  explicit Replays(const Sides& sides) : sides_(sides) {}

  // A cause that lies in the circumstances: the op gives other bits each time, or is right when it
  // runs by itself.
  std::optional<Cause> by_itself(const FailedOp& op);
  // What the failure depends on, if no variant fits: values that were never written, the other
  // tokens of the step, the token's place in it.
  std::optional<Cause> depends_on(const FailedOp& op);

 private:
  // The path's outputs of `host`, an op in host memory, in fresh buffers that hold `word` where the
  // op only writes. They lie in scratch_.
  std::vector<Tensor> run(const Op& host, const FailedOp& op, std::uint32_t word);
  bool is_right(const Op& host, const std::vector<Tensor>& got);
  // For the tokens at `rows` of the step.
  bool is_right_for(const FailedOp& op, std::span<const std::int64_t> rows);

  Sides sides_;
  Scratch scratch_;
};

}  // namespace qwen::crosscheck
