// What every launcher gets, and the launchers themselves: one per op, in <op>.cu. A launcher queues
// the op's kernels on the stream and returns; it allocates nothing, never waits, and takes every
// decision from the shapes of the op alone, so that it can be captured into a graph.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

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
  int mma_terms = 16;    // products that a tensor core adds in one step: 8 before Hopper
  bool exact = false;    // FP32 operands in matrix products, whatever it costs
  bool overlap = false;  // kernels that can may start before the one ahead has ended
  Cublas* cublas = nullptr;
};

inline constexpr int kCounters = 65536;

// Roundings of a sum of `n_terms` products of halves on tensor cores, in units of 2^-24 of the
// largest number that takes part. A step aligns its products and the sum so far to the largest of
// them, cuts each, and truncates the result to FP32, two units. Before Hopper it cuts 9 numbers
// below 2^-24 of the largest, since then 17 below 2^-25: 11 units at most. (Fasi et al. 2021,
// doi:10.7717/peerj-cs.330; Khattak & Mikaitis 2025, arXiv:2512.07004)
constexpr std::int64_t mma_units(std::int64_t n_terms, const Launch& on) {
  return 11 * ((n_terms + on.mma_terms - 1) / on.mma_terms);
}

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
