// How the CUDA backend runs. No CUDA header: known to builds without it.
#pragma once

namespace qwen {

struct CudaOptions {
  enum class Level {
    kEager,  // op by op
    kGraph,  // the same launches, compiled plans as captured graphs
    kFused,  // fused ops, compiled plans as captured graphs
  };
  Level level = Level::kFused;
  bool sync = false;         // waits after each op, so that an error names it
  int fail_allocation = -1;  // for tests: allocations fail from this one on
};

}  // namespace qwen
