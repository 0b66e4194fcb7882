// y = x W^T with x rounded to 8-bit integers (core/int8.h) and the weight's own levels. A few
// tokens go through the rows as they lie in the file; many share panels of rows, which are laid out
// so that a lane is a row while they are in a cache.
#include <algorithm>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/kernels/int8.h"
#include "core/int8.h"

namespace qwen {
namespace {

using cpu::Int8Format;
using cpu::Int8Rows;

// From here on the panel path is faster. Measured (Xeon, 2 GHz, 2 threads, 896 x 4864 Q8_0 / Q5_0 /
// Q4_K, us): 1 token 146 / 201 / 239 streaming, 222 / 170 / 187 in panels; 4 tokens 463 / 447 / 405
// and 276 / 218 / 241; 16 tokens 1789 / 1733 / 1609 and 528 / 387 / 433.
constexpr std::int64_t kFromTokens = 4;

// Most error is that of a few blocks. In a head it goes straight into the logits, and all blocks
// are fine: it is one row of x for a whole prompt, and otherwise waits for memory.
constexpr double kFineFrom = 1.5;
constexpr double kFineFromOfHead = 0x1p-20;

double fine_from(const Gemm& op) { return op.is_head ? kFineFromOfHead : kFineFrom; }

// Panels that a pass over the tokens uses: x is then read from the last-level cache once for 64
// rows.
constexpr std::int64_t kPanels = 4;

std::int64_t padded(std::int64_t n_cols) {
  return (n_cols + Int8Rows::kUnit - 1) / Int8Rows::kUnit * Int8Rows::kUnit;
}

// Cuts memory into arrays that begin at cache lines. Without memory it only counts.
class Carver {
 public:
  explicit Carver(std::byte* memory) : memory_(memory) {}
  template <class T>
  T* take(std::int64_t n) {
    std::byte* const at = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (static_cast<std::size_t>(n) * sizeof(T) + 63) / 64 * 64;
    return reinterpret_cast<T*>(at);
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::size_t used_ = 0;
};

Int8Rows carve_rows(Carver& carver, std::int64_t n_rows, std::int64_t n_cols, std::int64_t group,
                    std::int64_t tile) {
  const std::int64_t n = (n_rows + tile - 1) / tile * tile * padded(n_cols);
  Int8Rows rows{};
  rows.n_cols = padded(n_cols);
  rows.group = group;
  rows.tile = tile;
  rows.coarse = carver.take<std::int8_t>(n);
  rows.fine = carver.take<std::int8_t>(n);
  rows.steps = carver.take<float>(n / group);
  rows.sums = carver.take<std::byte>(n / group * 4);
  rows.fine_sums = carver.take<std::byte>(n / group * 4);
  rows.listed = carver.take<std::int32_t>(n / kInt8Block);
  rows.n_listed = carver.take<std::int32_t>(n_rows);
  return rows;
}

std::size_t floats(std::size_t bytes) { return (bytes + sizeof(float) - 1) / sizeof(float); }

}  // namespace

const Int8Format* CpuBackend::int8_format(const Gemm& op) const {
  if (activations_ != Activations::kInt8 || kernels_->int8 == nullptr) return nullptr;
  const Int8Format& format = kernels_->int8->formats[static_cast<std::size_t>(op.weight.dtype)];
  return format.sub > 0 ? &format : nullptr;
}

Contract CpuBackend::int8_contract(const Gemm& op, const Int8Format& format) {
  // A term: the product of its scales, that with an integer, and its addition. Fine planes are
  // terms of their own.
  const bool panels = op.x.rows() >= kFromTokens;
  const std::int64_t n_terms = padded(op.x.cols()) / (panels ? format.sub : Int8Rows::kUnit);
  constexpr std::int64_t kOfLanes = 4;  // additions of 16 lanes
  return {.sum_depth = (format.has_min ? 3 : 2) * n_terms + 2 + (panels ? 0 : kOfLanes),
          .separate_minima = format.has_min,
          .int8_fine_from = fine_from(op)};
}

void CpuBackend::int8_gemm(const Gemm& op, const Int8Format& format) {
  const std::int64_t n_tokens = op.x.rows();
  const std::int64_t n_cols = op.x.cols();
  const bool panels = n_tokens >= kFromTokens;
  const std::int64_t group = panels ? format.sub : 4;
  const std::int64_t tile = panels ? Int8Format::kPanelTokens : 1;
  Carver counter(nullptr);
  carve_rows(counter, n_tokens, n_cols, group, tile);
  Carver carver(reinterpret_cast<std::byte*>(shared_scratch(floats(counter.used()))));
  Int8Rows rows = carve_rows(carver, n_tokens, n_cols, group, tile);
  rows.fine_from = fine_from(op);
  rows.mostly_fine = op.is_head;
  pool_.chunks(n_tokens, panels ? 4 : n_tokens, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      kernels_->int8->quantise(op.x.f32() + t * n_cols, n_cols, format, rows, t);
    }
  });
  if (panels) {
    int8_panels(op, format, rows);
    return;
  }
  pool_.chunks(op.out.cols(), streamed_rows(op.weight),
               [&](std::int64_t begin, std::int64_t end, int) {
                 format.gemv({op.weight.data, op.weight.row_bytes(), begin, end, n_cols, rows,
                              n_tokens, op.out.f32(), op.out.cols()});
               });
}

void CpuBackend::int8_panels(const Gemm& op, const Int8Format& format, const Int8Rows& rows) {
  constexpr std::int64_t kRows = Int8Format::kPanelRows;
  constexpr std::int64_t kTokens = Int8Format::kPanelTokens;
  const std::int64_t n_out = op.out.cols();
  const std::size_t panel_bytes = format.panel_bytes(rows.n_cols);
  reserve_scratch(floats(kPanels * panel_bytes));
  pool_.chunks(n_out, kPanels * kRows, [&](std::int64_t begin, std::int64_t end, int thread) {
    auto* const memory = reinterpret_cast<std::byte*>(scratch(thread));
    for (std::int64_t first = begin; first < end; first += kPanels * kRows) {
      const std::int64_t past = std::min(end, first + kPanels * kRows);
      for (std::int64_t r = first; r < past; r += kRows) {
        format.pack(op.weight.row(r), op.weight.row_bytes(), std::min(kRows, past - r), op.x.cols(),
                    memory + (r - first) / kRows * panel_bytes);
      }
      for (std::int64_t t = 0; t < op.x.rows(); t += kTokens) {
        for (std::int64_t r = first; r < past; r += kRows) {
          format.multiply({memory + (r - first) / kRows * panel_bytes, rows, t / kTokens,
                           std::min(kTokens, op.x.rows() - t), std::min(kRows, past - r),
                           op.out.f32() + r, n_out});
        }
      }
    }
  });
}

}  // namespace qwen
