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
// two threads write to one. Measured (Zen 5, 2 threads, F16, GB/s): 16 KiB 25, 32 KiB 32, 128 KiB
// 40, 1 MiB 44 but too coarse for the small matrices.
constexpr std::int64_t kChunkBytes = 131072;
constexpr std::int64_t kRowsPerLine = 16;
// Of a small matrix, so that threads end together.
constexpr std::int64_t kChunksPerThread = 8;

// Columns per panel: x (tile of 2 vectors of tokens) 512 x 32 x 4 B = 64 KiB and a register tile's
// rows of weights 14 x 512 x 4 B = 28 KiB stay in L1 and L2.
constexpr std::int64_t kPanelCols = 512;

}  // namespace

bool CpuBackend::uses_panels(const Gemm& op) { return op.x.rows() >= kPanelTokens; }

void CpuBackend::run(const Gemm& op) {
  if (const cpu::Int8Format* format = int8_format(op)) {
    int8_gemm(op, *format);
  } else if (uses_panels(op)) {
    gemm(op);
  } else {
    gemv(op);
  }
}

std::int64_t CpuBackend::streamed_rows(const Tensor& weight) const {
  const std::int64_t of_bytes = kChunkBytes / static_cast<std::int64_t>(weight.row_bytes());
  const std::int64_t of_threads = weight.shape[0] / (kChunksPerThread * threads());
  return (std::min(of_bytes, of_threads) + kRowsPerLine) / kRowsPerLine * kRowsPerLine;
}

void CpuBackend::gemv(const Gemm& op) {
  const auto kernel = kernels_->gemv[static_cast<std::size_t>(op.weight.dtype)];
  const std::int64_t n_cols = op.x.cols();
  const std::int64_t grain = streamed_rows(op.weight);
  pool_.chunks(op.out.cols(), grain, [&](std::int64_t begin, std::int64_t end, int) {
    kernel({op.weight.data, op.weight.row_bytes(), begin, end, n_cols, op.x.f32(), n_cols,
            op.x.rows(), op.out.f32(), op.out.cols()});
  });
}

// Lanes are tokens: x is transposed once per product into blocks of 2 vectors of tokens; the
// weights are decoded as they lie, row by row, and broadcast. Sums over columns are taken in order,
// panel by panel, so the bits depend neither on the threads nor on the other tokens.
void CpuBackend::gemm(const Gemm& op) {
  const std::int64_t n_tokens = op.x.rows();
  const std::int64_t n_cols = op.x.cols();
  const std::int64_t n_out = op.out.cols();
  const std::int64_t block = 2 * kernels_->lanes;  // tokens per block
  const std::int64_t n_blocks = (n_tokens + block - 1) / block;
  const std::int64_t padded = n_blocks * block;

  // (n_blocks, n_cols, block); lanes past the last token hold whatever was there, never used.
  float* packed = shared_scratch(static_cast<std::size_t>(padded * n_cols));
  pool_.chunks(n_blocks, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t b = begin; b < end; ++b) {
      const std::int64_t rows = std::min(block, n_tokens - b * block);
      kernels_->transpose(op.x.f32() + b * block * n_cols, n_cols, packed + b * block * n_cols,
                          block, rows, n_cols);
    }
  });

  const auto decode = kernels_->decode[static_cast<std::size_t>(op.weight.dtype)];
  const std::int64_t panel_rows = 4 * kernels_->tile_rows;
  reserve_scratch(static_cast<std::size_t>(panel_rows * (kPanelCols + padded)));
  pool_.chunks(n_out, panel_rows, [&](std::int64_t begin, std::int64_t end, int thread) {
    float* weights = scratch(thread);
    float* sums = weights + panel_rows * kPanelCols;  // (rows, padded)
    for (std::int64_t first = begin; first < end; first += panel_rows) {
      const std::int64_t rows = std::min(panel_rows, end - first);
      for (std::int64_t c = 0; c < n_cols; c += kPanelCols) {
        const std::int64_t cols = std::min(kPanelCols, n_cols - c);
        const std::size_t skip = bytes_of(op.weight.dtype, c);
        for (std::int64_t r = 0; r < rows; ++r) {
          decode(op.weight.row(first + r) + skip, cols, weights + r * kPanelCols);
        }
        for (std::int64_t b = 0; b < n_blocks; ++b) {
          // The last block may need only its first vector.
          const std::int64_t width =
              n_tokens - b * block <= kernels_->lanes ? kernels_->lanes : block;
          kernels_->matmul({weights, kPanelCols, packed + (b * n_cols + c) * block, block,
                            sums + b * block, padded, rows, width, cols, c > 0});
        }
      }
      kernels_->transpose(sums, padded, op.out.f32() + first, n_out, rows, n_tokens);
    }
  });
}

}  // namespace qwen
