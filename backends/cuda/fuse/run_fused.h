// Runs a plan by its fused groups.
#pragma once

#include <functional>

#include "backends/cuda/fuse/fuse.h"
#include "backends/cuda/launch.h"

namespace qwen::cuda {

// Queues every group of fuse(plan); `single` runs the nodes that are in no group, and those of a
// group whose launcher does not apply.
void run_fused(const Plan& plan, const Launch& on, const std::function<void(const Node&)>& single);

}  // namespace qwen::cuda
