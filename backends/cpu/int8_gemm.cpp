// y = x W^T with x rounded to 8-bit integers (core/int8.h) and the weight's own levels. A few
// tokens go through the rows as they lie in the file; many share panels of rows, which are laid out
// so that a lane is a row while they are in a cache.
#include <algorithm>
#include <bit>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/kernels/int8.h"
#include "core/int8.h"

namespace qwen {
namespace {

using cpu::Int8Format;
using cpu::Int8Rows;

// From here on the panel path is faster. Measured (Xeon, 2 GHz, 2 threads, 896 x 4864 Q8_0 / Q5_0 /
// Q4_K, us): 1 token 146 / 201 / 239 streaming, 222 / 170 / 187 in panels; 4 tokens 463 / 447 / 405
// and 276 / 218 / 241; 16 tokens 1789 / 1733 / 1609 and 528 / 387 / 433. AVX2 and AVX-VNNI: alike
// at 3 tokens, at 4 panels are 1.1 to 2.1 times as fast.
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

Contract CpuBackend::int8_contract(const Gemm& op, const Int8Format& format) const {
  // A term: the product of its scales, that with an integer, and its addition. Fine planes are
  // terms of their own, but for a head's, whose integers may be rounded to FP32 instead.
  const bool panels = op.x.rows() >= kFromTokens;
  const std::int64_t lanes = kernels_->lanes;  // of four columns each
  const std::int64_t n_terms = padded(op.x.cols()) / (panels ? format.sub : 4 * lanes);
  const std::int64_t of_lanes = std::bit_width(static_cast<std::uint64_t>(lanes)) - 1;
  return {.sum_depth = (format.has_min ? 3 : 2) * n_terms + 2 + (panels ? 0 : of_lanes),
          .separate_minima = format.has_min,
          .int8_fine_from = fine_from(op)};
}

struct CpuBackend::Int8Product {
  const Gemm& op;
  const Int8Format& format;
  Int8Rows x;
};

std::vector<CpuBackend::Int8Product> CpuBackend::rounded(Products ops, bool panels) {
  const Tensor& x = ops.front().x;
  std::vector<Int8Product> products;
  for (const Gemm& op : ops) products.push_back({op, *int8_format(op), {}});
  const auto alike = [](const Int8Product& a, const Int8Product& b) {
    return a.format.sub == b.format.sub && a.format.offset == b.format.offset &&
           a.format.has_min == b.format.has_min && a.op.is_head == b.op.is_head;
  };
  std::vector<const Int8Product*> distinct;
  const auto carve = [&](std::byte* memory) {
    Carver carver(memory);
    distinct.clear();
    for (Int8Product& p : products) {
      const auto same = std::find_if(distinct.begin(), distinct.end(),
                                     [&](const Int8Product* d) { return alike(p, *d); });
      if (same != distinct.end()) {
        p.x = (*same)->x;
        continue;
      }
      p.x = carve_rows(carver, x.rows(), x.cols(), panels ? p.format.sub : 4,
                       panels ? Int8Format::kPanelTokens : 1);
      p.x.fine_from = fine_from(p.op);
      p.x.mostly_fine = p.op.is_head;
      distinct.push_back(&p);
    }
    return carver.used();
  };
  carve(reinterpret_cast<std::byte*>(shared_scratch(floats(carve(nullptr)))));
  pool_.chunks(x.rows(), panels ? 4 : x.rows(), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      for (const Int8Product* p : distinct) {
        kernels_->int8->quantise(x.f32() + t * x.cols(), x.cols(), p->format, p->x, t);
      }
    }
  });
  return products;
}

void CpuBackend::int8_gemm(Products ops) {
  const std::int64_t n_tokens = ops.front().x.rows();
  const bool panels = n_tokens >= kFromTokens;
  const std::vector<Int8Product> products = rounded(ops, panels);
  if (panels) {
    int8_panels(products);
    return;
  }
  const auto rows = [&](std::size_t i, std::int64_t begin, std::int64_t end, int) {
    const auto& [op, format, x] = products[i];
    format.gemv({op.weight.data, op.weight.row_bytes(), begin, end, op.x.cols(), x, n_tokens,
                 op.out.f32(), op.out.cols()});
  };
  pool_.chunks(streamed(ops), rows);
}

void CpuBackend::int8_panels(const std::vector<Int8Product>& products) {
  constexpr std::int64_t kRows = Int8Format::kPanelRows;
  constexpr std::int64_t kTokens = Int8Format::kPanelTokens;
  std::vector<cpu::ThreadPool::Range> ranges;
  for (const auto& [op, format, x] : products) {
    ranges.push_back({op.out.cols(), kPanels * kRows});
    reserve_scratch(floats(kPanels * format.panel_bytes(x.n_cols)));
  }
  const auto panels = [&](std::size_t i, std::int64_t begin, std::int64_t end, int thread) {
    const auto& [op, format, x] = products[i];
    const std::size_t panel_bytes = format.panel_bytes(x.n_cols);
    auto* const memory = reinterpret_cast<std::byte*>(scratch(thread));
    for (std::int64_t r = begin; r < end; r += kRows) {
      format.pack(op.weight.row(r), op.weight.row_bytes(), std::min(kRows, end - r), op.x.cols(),
                  memory + (r - begin) / kRows * panel_bytes);
    }
    for (std::int64_t t = 0; t < op.x.rows(); t += kTokens) {
      for (std::int64_t r = begin; r < end; r += kRows) {
        format.multiply({memory + (r - begin) / kRows * panel_bytes, x, t / kTokens,
                         std::min(kTokens, op.x.rows() - t), std::min(kRows, end - r),
                         op.out.f32() + r, op.out.cols()});
      }
    }
  };
  pool_.chunks(ranges, panels);
}

}  // namespace qwen
