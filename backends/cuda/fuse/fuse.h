// Plan -> groups of nodes that run as one. Host arithmetic alone: it can be tested without a GPU,
// and deleted without a trace in the ops.
//
// A fused op is nothing but a run of consecutive nodes and the pattern that they match. So
// expanding a fused plan gives the plan back by construction; what has to hold is that nobody reads
// the intermediate results that a group no longer stores, and fuse() checks that.
#pragma once

#include <cstddef>
#include <vector>

#include "core/ops.h"

namespace qwen::cuda {

enum class Pattern {
  kSingle,       // one node, as it is
  kNormQkv,      // RmsNorm, Gemm q k v, AddBias q k v, Rope q k, KvWrite
  kProjectAdd,   // Gemm, Add: the output projection and the residual
  kFeedForward,  // RmsNorm, Gemm gate up, SiluMul, Gemm down, Add
  kNormProject,  // RmsNorm, Gemm: the last norm and the head
};

struct Group {
  Pattern pattern = Pattern::kSingle;
  std::size_t first = 0;  // node of the plan
  std::size_t count = 1;
};

// The groups, in order; together they are all nodes of `plan`.
std::vector<Group> fuse(const Plan& plan);

// The tensors that the nodes of `group` write and that the group as one leaves undefined.
std::vector<Tensor> elided(const Plan& plan, const Group& group);

}  // namespace qwen::cuda
