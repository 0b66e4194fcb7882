// y = x W^T with x rounded to 8-bit integers (core/int8.h) and the weight's own levels, in panels
// of rows (kernels/panels.h).
#include <algorithm>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/kernels/int8.h"
#include "core/int8.h"

namespace qwen {
namespace {

using cpu::Int8Format;
using cpu::Int8PanelArgs;
using cpu::Int8Rows;
using cpu::kPanelRows;

// Most error is that of a few blocks. In a head it goes straight into the logits, and all blocks
// are fine: it is one row of x for a whole prompt, and otherwise waits for memory.
constexpr double kFineFrom = 1.5;
constexpr double kFineFromOfHead = 0x1p-20;

double fine_from(const Gemm& op) { return op.is_head ? kFineFromOfHead : kFineFrom; }

// Panels that a pass over the tokens uses: x is then read from the last-level cache once for 64
// rows.
constexpr std::int64_t kPanels = 4;

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

Int8Rows carve_rows(Carver& carver, std::int64_t n_rows, std::int64_t n_cols, std::int64_t sub,
                    bool all_fine) {
  Int8Rows rows{};
  rows.all_fine = all_fine;
  rows.n_cols = n_cols;
  rows.sub = sub;
  rows.tile = std::clamp(n_rows, std::int64_t{1}, Int8PanelArgs::kTileTokens);
  const std::int64_t n = (n_rows + rows.tile - 1) / rows.tile * rows.tile * n_cols;
  rows.coarse = carver.take<std::int8_t>(n);
  rows.steps = carver.take<float>(n / sub);
  rows.sums = carver.take<std::byte>(n / sub * 4);
  if (all_fine) {
    rows.fine = carver.take<std::int8_t>(n);
    rows.fine_sums = carver.take<std::byte>(n / sub * 4);
  } else {
    rows.listed = carver.take<cpu::FineBlock>(n / kInt8Block);
    rows.n_listed = carver.take<std::int32_t>(n_rows);
  }
  return rows;
}

std::size_t floats(std::size_t bytes) { return (bytes + sizeof(float) - 1) / sizeof(float); }

}  // namespace

const Int8Format* CpuBackend::int8_format(const Tensor& weight) const {
  if (activations_ != Activations::kInt8 || kernels_->int8 == nullptr) return nullptr;
  const Int8Format& format = kernels_->int8->formats[static_cast<std::size_t>(weight.dtype)];
  return format.sub > 0 ? &format : nullptr;
}

Contract CpuBackend::int8_contract(const Gemm& op, const Int8Format& format) {
  // A term: the product of its scales, that with an integer, and its addition. Fine planes are
  // terms of their own, but for a head's, whose integers may be rounded to FP32 instead.
  const std::int64_t n_terms = op.x.cols() / format.sub;
  return {.sum_depth = (format.has_min ? 3 : 2) * n_terms + 2,
          .separate_minima = format.has_min,
          .int8_fine_from = fine_from(op)};
}

struct CpuBackend::Int8Product {
  const Gemm& op;
  const Int8Format& format;
  bool in_panels;  // the weight
  Int8Rows x;

  // What panel() needs of scratch.
  std::size_t scratch_bytes() const { return in_panels ? 0 : kPanelRows * op.weight.row_bytes(); }
  // That of rows [row, row + 16), made in `scratch` if the weight is not in panels.
  const std::byte* panel(std::int64_t row, std::byte* scratch) const {
    const Tensor& w = op.weight;
    if (in_panels) return w.row(row);
    format.to_panel(w.row(row), w.row_bytes(), std::min(kPanelRows, w.rows() - row), scratch);
    return scratch;
  }
};

std::vector<CpuBackend::Int8Product> CpuBackend::rounded(Products ops) {
  const Tensor& x = ops.front().x;
  std::vector<Int8Product> products;
  for (const Gemm& op : ops) {
    products.push_back({op, *int8_format(op.weight), in_panels(op.weight), {}});
  }
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
      p.x = carve_rows(carver, x.rows(), x.cols(), p.format.sub, p.op.is_head);
      p.x.fine_from = fine_from(p.op);
      distinct.push_back(&p);
    }
    return carver.used();
  };
  carve(reinterpret_cast<std::byte*>(shared_scratch(floats(carve(nullptr)))));
  constexpr std::int64_t kRows = 4;  // of x, per chunk
  pool_.chunks(x.rows(), kRows, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      for (const Int8Product* p : distinct) {
        kernels_->int8->quantise(x.f32() + t * x.cols(), p->format, p->x, t);
      }
    }
  });
  return products;
}

void CpuBackend::int8_gemm(Products ops) {
  const std::vector<Int8Product> products = rounded(ops);
  if (ops.front().x.rows() > Int8PanelArgs::kTileTokens) return int8_tiles(products);
  for (const Int8Product& p : products) reserve_scratch(floats(p.scratch_bytes()));
  const auto rows = [&](std::size_t i, std::int64_t begin, std::int64_t end, int thread) {
    const Int8Product& p = products[i];
    const Tensor& out = p.op.out;
    auto* const memory = reinterpret_cast<std::byte*>(scratch(thread));
    for (std::int64_t r = begin; r < end; r += kPanelRows) {
      p.format.multiply({p.panel(r, memory), p.x, 0, out.rows(), std::min(kPanelRows, end - r),
                         out.f32() + r, out.cols()});
    }
  };
  pool_.chunks(streamed(ops), rows);
}

void CpuBackend::int8_tiles(const std::vector<Int8Product>& products) {
  constexpr std::int64_t kTokens = Int8PanelArgs::kTileTokens;
  std::vector<cpu::ThreadPool::Range> ranges;
  for (const Int8Product& p : products) {
    ranges.push_back({p.op.out.cols(), kPanels * kPanelRows});
    reserve_scratch(floats(kPanels * p.format.expanded_bytes(p.x.n_cols) + p.scratch_bytes()));
  }
  const auto panels = [&](std::size_t i, std::int64_t begin, std::int64_t end, int thread) {
    const Int8Product& p = products[i];
    const Tensor& out = p.op.out;
    const std::size_t expanded_bytes = p.format.expanded_bytes(p.x.n_cols);
    auto* const expanded = reinterpret_cast<std::byte*>(scratch(thread));
    std::byte* const packed = expanded + kPanels * expanded_bytes;
    for (std::int64_t r = begin; r < end; r += kPanelRows) {
      p.format.expand(p.panel(r, packed), p.x.n_cols,
                      expanded + (r - begin) / kPanelRows * expanded_bytes);
    }
    for (std::int64_t t = 0; t < out.rows(); t += kTokens) {
      for (std::int64_t r = begin; r < end; r += kPanelRows) {
        p.format.multiply_expanded({expanded + (r - begin) / kPanelRows * expanded_bytes, p.x,
                                    t / kTokens, std::min(kTokens, out.rows() - t),
                                    std::min(kPanelRows, end - r), out.f32() + r, out.cols()});
      }
    }
  };
  pool_.chunks(ranges, panels);
}

}  // namespace qwen
