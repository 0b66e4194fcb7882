#include "tools/qwen/stream.h"

#include <algorithm>
#include <chrono>

#include "core/arena.h"
#include "tools/qwen/profile.h"

namespace qwen::cli {
namespace {

constexpr std::int64_t kCols = 8192;
constexpr std::int64_t kMaxRows = 65536;  // 1 GiB in F16
constexpr std::int64_t kMinRows = 4096;   // 64 MiB: less fits into the caches of large GPUs
constexpr int kOps = 20;  // per run: 5 ms at 4 TB/s, next to which a wait is nothing
constexpr int kRuns = 5;

double best_rate(Backend& backend, const Op& op) {
  const auto program = backend.compile(Plan(kOps, Node{op, {}}));
  double best = 0;
  for (int run = 0; run <= kRuns; ++run) {
    wait_for(backend, op);
    const auto start = std::chrono::steady_clock::now();
    program->run();
    wait_for(backend, op);
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    // The first run only warms up.
    if (run > 0) best = std::max(best, static_cast<double>(kOps * bytes(op)) / spent.count());
  }
  return best;
}

}  // namespace

double measure_stream_limit(Backend& backend, std::size_t max_bytes) {
  const std::size_t row_bytes = bytes_of(DType::kF16, kCols);
  const auto most = static_cast<std::int64_t>(max_bytes / row_bytes);
  const std::int64_t rows = std::min(kMaxRows, most / 2);  // and as much left for all else
  if (rows < kMinRows) return 0;
  // What the memory holds does not matter to its speed, but not-a-number and denormal values could
  // to an op's.
  const std::size_t weight_bytes = static_cast<std::size_t>(rows) * row_bytes;
  const Buffer weight_memory = backend.allocate(weight_bytes);
  const std::vector<std::byte> zeros(std::size_t{64} << 20);
  for (std::size_t at = 0; at < weight_bytes; at += zeros.size()) {
    const auto n = static_cast<std::int64_t>(std::min(zeros.size(), weight_bytes - at));
    backend.write(Tensor(weight_memory.get() + at, DType::kI8, {n}), zeros.data());
  }
  const Buffer rest = backend.allocate((kCols + rows) * sizeof(float) + 2 * Arena::kAlignment);
  Arena arena(rest.get(), (kCols + rows) * sizeof(float) + 2 * Arena::kAlignment);
  const Tensor x = arena.take(DType::kF32, {1, kCols});
  const Tensor y = arena.take(DType::kF32, {1, rows});
  backend.write(x, zeros.data());

  // An F16 weight lies on every backend as it does in a file.
  const Tensor weight(weight_memory.get(), DType::kF16, {rows, kCols});
  const Tensor a(weight_memory.get(), DType::kF32, {rows / 4, kCols});
  const Tensor b(weight_memory.get() + a.bytes(), DType::kF32, {rows / 4, kCols});
  return std::max(best_rate(backend, Gemm{y, x, weight}), best_rate(backend, Add{a, b}));
}

}  // namespace qwen::cli
