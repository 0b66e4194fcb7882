#include "backends/cuda/fuse/run_fused.h"

#include "backends/cuda/fuse/groups.h"

namespace qwen::cuda {
namespace {

bool launch_group(const Plan& plan, const Group& group, const Launch& on) {
  const auto op = [&]<class T>(std::size_t i) -> const T& {
    return std::get<T>(plan[group.first + i].op);
  };
  const auto norm = [&](std::size_t i) -> const RmsNorm& { return op.operator()<RmsNorm>(i); };
  const auto gemm = [&](std::size_t i) -> const Gemm& { return op.operator()<Gemm>(i); };
  const auto bias = [&](std::size_t i) -> const AddBias& { return op.operator()<AddBias>(i); };
  const auto rope = [&](std::size_t i) -> const Rope& { return op.operator()<Rope>(i); };
  const auto add = [&](std::size_t i) -> const Add& { return op.operator()<Add>(i); };
  switch (group.pattern) {
    case Pattern::kNormQkv:
      return launch(NormQkv{norm(0), gemm(1), gemm(2), gemm(3), bias(4), bias(5), bias(6), rope(7),
                            rope(8), op.operator()<KvWrite>(9)},
                    on);
    case Pattern::kFeedForward:
      return launch(
          FeedForward{norm(0), gemm(1), gemm(2), op.operator()<SiluMul>(3), gemm(4), add(5)}, on);
    case Pattern::kProjectAdd:
      return launch(gemm(0), add(1), on);
    case Pattern::kNormProject:
      return launch(norm(0), gemm(1), on);
    case Pattern::kSingle:
      break;
  }
  return false;
}

}  // namespace

void run_fused(const Plan& plan, const Launch& on, const std::function<void(const Node&)>& single) {
  for (const Group& group : fuse(plan)) {
    if (launch_group(plan, group, on)) continue;
    for (std::size_t n = group.first; n < group.first + group.count; ++n) single(plan[n]);
  }
}

}  // namespace qwen::cuda
