#include "backends/cuda/launch.h"

namespace qwen::cuda {

std::size_t workspace_bytes(const Op& op, int n_sms, bool exact) {
  if (const auto* gemm = std::get_if<Gemm>(&op)) return workspace_bytes(*gemm, exact);
  if (const auto* attention = std::get_if<Attention>(&op)) {
    return workspace_bytes(*attention, n_sms);
  }
  if (const auto* sample = std::get_if<Sample>(&op)) return workspace_bytes(*sample);
  return 0;
}

}  // namespace qwen::cuda
