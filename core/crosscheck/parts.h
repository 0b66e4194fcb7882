// The outputs of an op, judged in parts that do not depend on who judges which.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/crosscheck/bounds.h"
#include "core/crosscheck/judge.h"
#include "core/crosscheck/judge_part.h"

namespace qwen::crosscheck {

// The first places at which an output's bounds are sampled.
inline constexpr std::uint64_t kSampledFirst = 3;

struct Part {
  // By output.
  struct Output {
    Range elements;
    JudgedPart judged;
    std::vector<double> sampled;  // bounds of those of the first places that are among `elements`
  };
  Bounds bounds;
  std::vector<Output> outputs;
};

// Of an op that is not compared bit for bit; in the order of their elements. As judge().
std::vector<Part> judged_parts(const Op& op, const std::vector<Tensor>& expected,
                               const std::vector<Tensor>& got,
                               const std::vector<Contract>& contracts, const JudgeOptions& options);

// One that is all of a tensor.
Part judged_whole(const Tensor& expected, const Tensor& got, std::vector<double> bounds);

}  // namespace qwen::crosscheck
