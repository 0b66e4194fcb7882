// What a session needs, what there is, and the context that fits.
#pragma once

#include <cstdint>
#include <string>

#include "backends/registry.h"
#include "core/model.h"
#include "tools/qwen/setting.h"

namespace qwen::cli {

struct MemoryNeed {
  std::uint64_t weights = 0;
  std::uint64_t kv = 0;
  std::uint64_t scratch = 0;
  std::uint64_t total() const { return weights + kv + scratch; }
  // "weights 7.6, KV 1.8, scratch 0.4", in GiB
  std::string parts() const;
};

struct ContextRequest {
  ModelShape shape;
  DType kv_dtype = DType::kF32;
  std::uint64_t weight_bytes = 0;
  std::int64_t max_step_tokens = 512;
  std::int64_t max_step_rows = 1;
  std::int64_t n_seqs = 1;
  std::uint64_t backend_bytes = 0;  // what the backend needs besides tensors
};

MemoryNeed memory_need(const ContextRequest& request, std::int64_t ctx);

// Bytes that the device still has for us; the limits of this process (ulimit -v) count on the host.
std::uint64_t free_memory(const Device& device);

// Throws Error (Exit::kOutOfMemory) if not even the weights fit: asked before they are copied.
void check_weights_fit(std::uint64_t weight_bytes, const Device& device);

// The context to use: `wanted` (0: the trained length) if it fits into `free` bytes. The trained
// length is shrunk to what fits; a length that was asked for is not. Throws Error: Exit::kUsage
// above the trained length, Exit::kOutOfMemory if it does not fit.
std::int64_t fit_context(const ContextRequest& request, std::int64_t wanted, std::uint64_t free,
                         const Device& device);

}  // namespace qwen::cli
