// The launchers of fused groups. Each takes the ops that it stands for.
#pragma once

#include "backends/cuda/launch.h"

namespace qwen::cuda {

struct NormQkv {
  const RmsNorm& norm;
  const Gemm &q, &k, &v;
  const AddBias &q_bias, &k_bias, &v_bias;
  const Rope &rope_q, &rope_k;
  const KvWrite& write;
};

struct FeedForward {
  const RmsNorm& norm;
  const Gemm &gate, &up;
  const SiluMul& glu;
  const Gemm& down;
  const Add& add;
};

// Each returns false, having queued nothing, where it does not apply to these shapes and formats:
// then the ops run one by one. The workspace of the ops is enough.
bool launch(const NormQkv& ops, const Launch& on);
bool launch(const FeedForward& ops, const Launch& on);
bool launch(const Gemm& project, const Add& add, const Launch& on);
bool launch(const RmsNorm& norm, const Gemm& project, const Launch& on);

}  // namespace qwen::cuda
