// What every launcher gets, and the launchers themselves: one per op, in <op>.cu. A launcher queues
// the op's kernels on the stream and returns; it allocates nothing, never waits, and takes every
// decision from the shapes of the op alone, so that it can be captured into a graph.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "core/ops.h"

namespace qwen::cuda {

class Cublas;

// The device that launches go to.
struct Launch {
  cudaStream_t stream = nullptr;
  int n_sms = 0;                     // multiprocessors
  std::size_t max_shared_bytes = 0;  // shared memory that a block may have
  // Of the largest workspace_bytes() among the ops; contents undefined.
  std::byte* workspace = nullptr;
  // kCounters words that are zero between kernels: a kernel that counts its blocks puts its counter
  // back to zero.
  unsigned* counters = nullptr;
  bool exact = false;    // FP32 operands in matrix products, whatever it costs
  bool overlap = false;  // kernels that can may start before the one ahead has ended
  Cublas* cublas = nullptr;
};

inline constexpr int kCounters = 65536;

void launch(const Embed& op, const Launch& on);
void launch(const RmsNorm& op, const Launch& on);
void launch(const Gemm& op, const Launch& on);
void launch(const AddBias& op, const Launch& on);
void launch(const Rope& op, const Launch& on);
void launch(const KvWrite& op, const Launch& on);
void launch(const Attention& op, const Launch& on);
void launch(const SiluMul& op, const Launch& on);
void launch(const Add& op, const Launch& on);
void launch(const TakeRows& op, const Launch& on);
void launch(const Sample& op, const Launch& on);
void launch(const Advance& op, const Launch& on);

// Device scratch that a launch of `op` needs, and the same for any fewer rows of it. Host
// arithmetic alone.
std::size_t workspace_bytes(const Gemm& op, bool exact);
std::size_t workspace_bytes(const Attention& op, int n_sms);
std::size_t workspace_bytes(const Sample& op);
std::size_t workspace_bytes(const Op& op, int n_sms, bool exact);  // 0 for the others

}  // namespace qwen::cuda
