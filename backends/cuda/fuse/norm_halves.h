// Activations on their way to cuBLAS: F16, times kScale (tile/mma.cuh).
#pragma once

#include "backends/cuda/launch.h"

namespace qwen::cuda {

// halves (n_tokens, dim) = x / sqrt(mean(x^2) + eps) * weight.
void norm_to_halves(std::byte* halves, const RmsNorm& op, const Launch& on);
// halves (n_tokens, ffn_dim) = silu(gate) * up.
void glu_to_halves(std::byte* halves, const SiluMul& op, const Launch& on);

}  // namespace qwen::cuda
