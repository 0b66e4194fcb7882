// Launching tile/gemv.cuh: the choice of format and grid.
#pragma once

#include <algorithm>
#include <utility>

#include "backends/cuda/launch_kernel.h"
#include "backends/cuda/tile/gemv.cuh"

namespace qwen::cuda {

inline tile::Weights weights_of(const Tensor& t) {
  const DTypeInfo& type = info(t.dtype);
  return {t.data, t.size() / type.block_size, static_cast<int>(t.shape[0]),
          static_cast<int>(t.shape[1])};
}

// Calls action.template operator()<Format>() with the format of `dtype`, for whole chunks of
// columns.
template <class Action>
void with_format(DType dtype, Action&& action) {
  switch (dtype) {
    case DType::kF32:
      return action.template operator()<tile::Wide<float, false>>();
    case DType::kBF16:
      return action.template operator()<tile::Wide<__nv_bfloat16, false>>();
    case DType::kF16:
      return action.template operator()<tile::Halves<false>>();
    case DType::kQ8_0:
      return action.template operator()<tile::Blocks<tile::Q8_0>>();
    case DType::kQ4_0:
      return action.template operator()<tile::Blocks<tile::Q4_0>>();
    case DType::kQ4_1:
      return action.template operator()<tile::Blocks<tile::Q4_1>>();
    case DType::kQ5_0:
      return action.template operator()<tile::Blocks<tile::Q5_0>>();
    case DType::kQ5_1:
      return action.template operator()<tile::Blocks<tile::Q5_1>>();
    case DType::kQ2_K:
      return action.template operator()<tile::Blocks<tile::Q2_K>>();
    case DType::kQ3_K:
      return action.template operator()<tile::Blocks<tile::Q3_K>>();
    case DType::kQ4_K:
      return action.template operator()<tile::Blocks<tile::Q4_K>>();
    case DType::kQ5_K:
      return action.template operator()<tile::Blocks<tile::Q5_K>>();
    case DType::kQ6_K:
      return action.template operator()<tile::Blocks<tile::Q6_K>>();
    case DType::kIQ4_NL:
      return action.template operator()<tile::Blocks<tile::IQ4_NL>>();
    case DType::kIQ4_XS:
      return action.template operator()<tile::Blocks<tile::IQ4_XS>>();
    case DType::kI8:
    case DType::kI32:
      return;  // refused by validate()
  }
}

// The same for columns that are no multiple of 32, which blocks never are.
template <class Action>
void with_ragged_format(DType dtype, Action&& action) {
  if (dtype == DType::kF32) action.template operator()<tile::Wide<float, true>>();
  if (dtype == DType::kBF16) action.template operator()<tile::Wide<__nv_bfloat16, true>>();
  if (dtype == DType::kF16) action.template operator()<tile::Halves<true>>();
}

// The kernel's own shared arrays, and what the system takes of each block.
inline constexpr std::size_t kGemvStaticBytes = 10 << 10;

// Tokens that one launch can take: more columns leave room for fewer.
inline int gemv_max_tokens(std::int64_t n_cols, const Launch& on) {
  const std::size_t one = tile::gemv_shared_bytes(1, static_cast<int>(n_cols), true);
  const std::size_t fit = (on.max_shared_bytes - kGemvStaticBytes) / one;
  return static_cast<int>(std::min<std::size_t>(tile::kTokens, fit));
}

// A block gets this much without being asked for more.
inline constexpr std::size_t kFreeSharedBytes = (48 << 10) - kGemvStaticBytes;

template <class Format, int kWarps, class Job>
void launch_gemv_warps(const Job& job, const Launch& on, tile::Company company) {
  const std::size_t shared = tile::gemv_shared_bytes(job.n_tokens, job.n_cols, Format::kHasMin);
  const auto kernel = tile::gemv<Format, kWarps, Job>;
  if (shared > kFreeSharedBytes) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(on.max_shared_bytes - kGemvStaticBytes)));
  }
  const int fit =
      static_cast<int>(std::min<std::size_t>(tile::gemv_blocks_per_sm<Format, kWarps>(),
                                             on.max_shared_bytes / (shared + kGemvStaticBytes)));
  const int blocks = std::min(job.n_tiles, on.n_sms * std::max(fit, 1));
  launch_kernel(kernel, Start::kMayOverlap, static_cast<unsigned>(blocks), 32 * kWarps, shared, on,
                job, company);
}

// Queues `job`, whose n_tokens are at most gemv_max_tokens().
template <class Format, class Job>
void launch_gemv(const Job& job, const Launch& on, tile::Company company = tile::Company::kAlone) {
  if constexpr (Job::kFewTiles) {
    if (tile::gemv_warps(job.n_cols) == tile::kManyWarps) {
      return launch_gemv_warps<Format, tile::kManyWarps>(job, on, company);
    }
  }
  launch_gemv_warps<Format, tile::kFewWarps>(job, on, company);
}

}  // namespace qwen::cuda
