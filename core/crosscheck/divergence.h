// Where and by how much a path differs from the oracle.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/crosscheck/judge.h"
#include "core/crosscheck/replays.h"
#include "core/session.h"

namespace qwen::crosscheck {

// Where an op that failed stands, and the worst element of the first token at which it did.
struct Divergence {
  Tap tap;
  std::string_view output;  // "out", "lse", "pos": the operand that differs
  std::int64_t token = 0;   // of the sequence: its position
  std::int32_t seq = 0;     // -1: a cache page that no sequence has
  std::vector<std::int64_t> coords =
      {};  // of the element in its token's row: (column), (head, d), ...
  Element element;
  std::int64_t n_failed = 0;
  std::int64_t n_elements = 0;
  std::string pattern = {};  // pattern_of() the failed elements
  Cause cause = {};
};

// Of an output that failed in a step of `tokens`, its cause not yet known. `op` gives the page
// table of a cache; what it points to must lie in host memory.
Divergence divergence_of(const Judgement& judgement, const Op& op, const Tap& tap,
                         const Tensor& output, std::span<const TokenInput> tokens);

}  // namespace qwen::crosscheck
