// y = x W^T. One path for a few tokens, which streams the weights once and decodes them on the fly;
// one for many, which decodes a panel of weights and uses it for all tokens.
#include <algorithm>

#include "backends/cpu/cpu_backend.h"

namespace qwen {
namespace {

// From here on the panel path is faster. Measured (Zen 5, one thread, 896 x 4864, ms): a token more
// costs the streaming path 0.09 (Q8_0, F16) to 0.13 (Q5_0); the panel path takes 1.9 to 2.1 for up
// to 32 tokens.
constexpr std::int64_t kPanelTokens = 17;

// Weight bytes per claimed chunk of the streaming path, in whole cache lines of results so that no
// two threads write to one. Measured when threads had no shares of their own, so that each chunk
// began at a place that nothing had asked for (Zen 5, 2 threads, F16, GB/s): 16 KiB 25, 32 KiB 32,
// 128 KiB 40, 1 MiB 44 but too coarse for the small matrices.
constexpr std::int64_t kChunkBytes = 131072;
constexpr std::int64_t kRowsPerLine = 16;
// Of a small matrix, so that threads end together.
constexpr std::int64_t kChunksPerThread = 8;

// Columns per panel: x (tile of 2 vectors of tokens) 512 x 32 x 4 B = 64 KiB and a register tile's
// rows of weights 14 x 512 x 4 B = 28 KiB stay in L1 and L2.
constexpr std::int64_t kPanelCols = 512;

}  // namespace

using cpu::ThreadPool;

bool CpuBackend::uses_panels(const Gemm& op) { return op.x.rows() >= kPanelTokens; }

bool CpuBackend::goes_with(std::span<const Node> run, const Node& node) const {
  const auto* const op = std::get_if<Gemm>(&node.op);
  return op != nullptr && std::all_of(run.begin(), run.end(), [&](const Node& other) {
           const auto* const earlier = std::get_if<Gemm>(&other.op);
           return earlier != nullptr && op->x.data == earlier->x.data &&
                  op->x.shape == earlier->x.shape && !op->out.overlaps(earlier->out) &&
                  !op->weight.overlaps(earlier->out) && !op->out.overlaps(earlier->weight) &&
                  (int8_format(op->weight) == nullptr) == (int8_format(earlier->weight) == nullptr);
         });
}

std::vector<FusedRun> CpuBackend::fused_runs(const Plan& plan) const {
  std::vector<FusedRun> runs;
  for (std::size_t first = 0, past = 1; first < plan.size(); first = past++) {
    const auto run = [&] { return std::span(plan).subspan(first, past - first); };
    while (past < plan.size() && goes_with(run(), plan[past])) ++past;
    if (past - first > 1) {
      runs.push_back({.first = first, .count = past - first, .same_bits = true});
    }
  }
  return runs;
}

void CpuBackend::execute_unobserved(const Plan& plan) {
  std::size_t next = 0;
  const auto run_single = [&](std::size_t until) {
    for (; next < until; ++next) (*this)(plan[next].op, plan[next].tap);
  };
  std::vector<Gemm> products;
  for (const FusedRun& run : fused_runs(plan)) {
    run_single(run.first);
    products.clear();
    for (; next < run.first + run.count; ++next) {
      validate(plan[next].op);
      products.push_back(std::get<Gemm>(plan[next].op));
    }
    multiply(products);
  }
  run_single(plan.size());
}

void CpuBackend::run(const Gemm& op) { multiply({&op, 1}); }

void CpuBackend::multiply(Products ops) {
  if (int8_format(ops.front().weight) != nullptr) {
    int8_gemm(ops);
  } else if (uses_panels(ops.front())) {
    gemm(ops);
  } else {
    gemv(ops);
  }
}

std::vector<ThreadPool::Range> CpuBackend::streamed(Products ops) const {
  std::vector<ThreadPool::Range> ranges;
  for (const Gemm& op : ops) {
    const std::int64_t n_rows = op.weight.shape[0];
    const std::int64_t of_bytes = kChunkBytes / static_cast<std::int64_t>(op.weight.row_bytes());
    const std::int64_t of_threads = n_rows / (kChunksPerThread * threads());
    const std::int64_t rows = std::min(of_bytes, of_threads);
    ranges.push_back({n_rows, (rows + kRowsPerLine) / kRowsPerLine * kRowsPerLine});
  }
  return ranges;
}

void CpuBackend::gemv(Products ops) {
  const Tensor& x = ops.front().x;
  const auto rows = [&](std::size_t i, std::int64_t begin, std::int64_t end, int) {
    const Gemm& op = ops[i];
    kernels_->gemv[static_cast<std::size_t>(op.weight.dtype)](
        {op.weight.data, op.weight.row_bytes(), begin, end, x.cols(), x.f32(), x.cols(), x.rows(),
         op.out.f32(), op.out.cols()});
  };
  pool_.chunks(streamed(ops), rows);
}

// Lanes are tokens: x is transposed once into blocks of 2 vectors of tokens; the weights are
// decoded as they lie, row by row, and broadcast. Sums over columns are taken in order, panel by
// panel, so the bits depend neither on the threads nor on the other tokens.
void CpuBackend::gemm(Products ops) {
  const Tensor& x = ops.front().x;
  const std::int64_t n_tokens = x.rows();
  const std::int64_t n_cols = x.cols();
  const std::int64_t block = 2 * kernels_->lanes;  // tokens per block
  const std::int64_t n_blocks = (n_tokens + block - 1) / block;
  const std::int64_t padded = n_blocks * block;

  // (n_blocks, n_cols, block); lanes past the last token hold whatever was there, never used.
  float* packed = shared_scratch(static_cast<std::size_t>(padded * n_cols));
  pool_.chunks(n_blocks, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t b = begin; b < end; ++b) {
      const std::int64_t rows = std::min(block, n_tokens - b * block);
      kernels_->transpose(x.f32() + b * block * n_cols, n_cols, packed + b * block * n_cols, block,
                          rows, n_cols);
    }
  });

  const std::int64_t panel_rows = 4 * kernels_->tile_rows;
  reserve_scratch(static_cast<std::size_t>(panel_rows * (kPanelCols + padded)));
  const auto panel = [&](std::size_t i, std::int64_t begin, std::int64_t end, int thread) {
    const Gemm& op = ops[i];
    const auto decode = kernels_->decode[static_cast<std::size_t>(op.weight.dtype)];
    const std::int64_t rows = end - begin;
    float* const weights = scratch(thread);
    float* const sums = weights + panel_rows * kPanelCols;  // (rows, padded)
    for (std::int64_t c = 0; c < n_cols; c += kPanelCols) {
      const std::int64_t cols = std::min(kPanelCols, n_cols - c);
      const std::size_t skip = bytes_of(op.weight.dtype, c);
      for (std::int64_t r = 0; r < rows; ++r) {
        decode(op.weight.row(begin + r) + skip, cols, weights + r * kPanelCols);
      }
      for (std::int64_t b = 0; b < n_blocks; ++b) {
        // The last block may need only its first vector.
        const std::int64_t width =
            n_tokens - b * block <= kernels_->lanes ? kernels_->lanes : block;
        kernels_->matmul({weights, kPanelCols, packed + (b * n_cols + c) * block, block,
                          sums + b * block, padded, rows, width, cols, c > 0});
      }
    }
    kernels_->transpose(sums, padded, op.out.f32() + begin, op.out.cols(), rows, n_tokens);
  };
  std::vector<ThreadPool::Range> ranges;
  for (const Gemm& op : ops) ranges.push_back({op.out.cols(), panel_rows});
  pool_.chunks(ranges, panel);
}

}  // namespace qwen
