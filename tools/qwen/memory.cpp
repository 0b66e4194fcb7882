#include "tools/qwen/memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>

#include "core/error.h"
#include "core/kv_cache.h"
#include "tools/qwen/format.h"
#include "tools/qwen/parser.h"

namespace qwen::cli {
namespace {

// Contexts are offered in such steps.
constexpr std::int64_t kContextStep = 256;

std::string gib(std::uint64_t bytes) {
  const double value = static_cast<double>(bytes) / (1 << 30);
  return fixed(value, value < 0.095 ? 3 : 1);
}

std::uint64_t address_space_left() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return std::numeric_limits<std::uint64_t>::max();
  }
  std::ifstream file("/proc/self/statm");
  std::uint64_t pages = 0;
  file >> pages;
  const std::uint64_t used = pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  return used < limit.rlim_cur ? limit.rlim_cur - used : 0;
}

constexpr const char* kSmallerModel =
    "a smaller model, or one with fewer bits per weight, needs less";

[[noreturn]] void refuse(const MemoryNeed& need, std::uint64_t free, const Device& device,
                         const std::string& hint) {
  throw Error({.exit = Exit::kOutOfMemory,
               .code = "out_of_memory",
               .message = "needs " + gib(need.total()) + " GiB of " +
                          (device.kind == "cuda" ? "GPU " : "") + "memory (" + need.parts() +
                          "), " + gib(free) + " GiB are free",
               .hint = hint});
}

}  // namespace

std::string MemoryNeed::parts() const {
  return "weights " + gib(weights) + ", KV " + gib(kv) + ", scratch " + gib(scratch);
}

MemoryNeed memory_need(const ContextRequest& request, std::int64_t ctx) {
  const ModelShape& m = request.shape;
  const std::int64_t n_tokens = std::min(request.max_step_tokens, ctx * request.n_seqs);
  const std::int64_t n_rows = std::min(request.max_step_rows, n_tokens);
  // The tensors of a step: residual stream, normed input, queries, keys, values, attention, and
  // three of the feed-forward layer per token; the logits per row.
  const std::int64_t per_token =
      2 * m.dim + 2 * (m.n_heads + m.n_kv_heads) * m.head_dim + 3 * m.ffn_dim;
  const std::int64_t floats = n_tokens * per_token + n_rows * (2 * m.dim + m.n_vocab);
  const KvCacheShape kv{m.n_layers,     m.n_kv_heads, m.head_dim,
                        request.n_seqs, ctx,          request.kv_dtype};
  return {request.weight_bytes, kv.bytes(), bytes_of(DType::kF32, floats) + request.backend_bytes};
}

std::uint64_t free_memory(const Device& device) {
  // A device whose whole memory is not known sets no limit.
  const std::uint64_t free = device.memory_bytes != 0 ? device.memory_free_bytes
                                                      : std::numeric_limits<std::uint64_t>::max();
  return device.kind == "cuda" ? free : std::min(free, address_space_left());
}

void check_weights_fit(std::uint64_t weight_bytes, const Device& device) {
  const std::uint64_t free = free_memory(device);
  if (weight_bytes > free) refuse({weight_bytes, 0, 0}, free, device, kSmallerModel);
}

std::int64_t fit_context(const ContextRequest& request, std::int64_t wanted, std::uint64_t free,
                         const Device& device) {
  const std::int64_t trained = request.shape.context_length;
  if (wanted > trained) {
    usage_error("-c " + thousands(wanted) + " is above the " + thousands(trained) +
                    " tokens that the model was trained for",
                "-c " + std::to_string(trained));
  }
  const std::int64_t target = wanted > 0 ? wanted : trained;
  const auto fits = [&](std::int64_t ctx) { return memory_need(request, ctx).total() <= free; };
  if (fits(target)) return target;

  std::int64_t low = 0;  // the largest multiple of the step that fits
  std::int64_t high = target / kContextStep;
  while (low < high) {
    const std::int64_t middle = low + (high - low + 1) / 2;
    if (fits(middle * kContextStep)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const std::int64_t best = low * kContextStep;
  if (wanted == 0 && best > 0) return best;
  const MemoryNeed need = memory_need(request, target);
  std::string hint = kSmallerModel;
  if (best > 0) {
    hint = "-c " + std::to_string(best) + " would need " + gib(memory_need(request, best).total()) +
           " GiB";
  }
  refuse(need, free, device, hint);
}

}  // namespace qwen::cli
