// Weights as products stream them: in huge pages, and those whose products are of integers in
// panels of rows (kernels/panels.h).
#include <algorithm>
#include <cstring>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/kernels/int8.h"

namespace qwen {

using cpu::kPanelRows;

Tensor CpuBackend::place_weight(const Tensor& host) {
  // Formats without a product in integers stay where they are: it takes longer to decode them than
  // to read them. So does all that an exact path has: it begins at once.
  const cpu::Int8Format* const format = int8_format(host);
  const bool is_copied = activations_ == Activations::kInt8 && info(host.dtype).block_size == 1;
  const bool is_placed = host.rank == 2 && host.size() > 0 && (format != nullptr || is_copied);
  if (!is_placed) return host;
  const std::size_t row_bytes = host.row_bytes();
  const std::int64_t n_panels = (host.rows() + kPanelRows - 1) / kPanelRows;
  const std::size_t panel_bytes = kPanelRows * row_bytes;
  std::shared_ptr<std::byte> memory =
      huge_pages_.take(static_cast<std::size_t>(n_panels) * panel_bytes);
  std::byte* const to = memory.get();
  // Panels through memory that is in a cache: words that go straight to new pages wait for each
  // line.
  if (format != nullptr) reserve_scratch(panel_bytes / sizeof(float));
  pool_.chunks(n_panels, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t first = p * kPanelRows;
      const std::int64_t n_rows = std::min(kPanelRows, host.rows() - first);
      std::byte* const panel = to + static_cast<std::size_t>(p) * panel_bytes;
      if (format == nullptr) {
        std::memcpy(panel, host.row(first), static_cast<std::size_t>(n_rows) * row_bytes);
        continue;
      }
      auto* const made = reinterpret_cast<std::byte*>(scratch(thread));
      format->to_panel(host.row(first), row_bytes, n_rows, made);
      std::memcpy(panel, made, panel_bytes);
    }
  });
  placed_[to] = std::move(memory);
  return Tensor(to, host.dtype, host.dims());
}

void CpuBackend::drop_weight(const Tensor& weight) { placed_.erase(weight.data); }

bool CpuBackend::in_panels(const Tensor& weight) const {
  return int8_format(weight) != nullptr && placed_.contains(weight.data);
}

void CpuBackend::read_panel_row(const Tensor& weight, std::int64_t row, std::byte* to) const {
  const std::int64_t first = row / kPanelRows * kPanelRows;
  int8_format(weight)->from_panel(weight.row(first), row - first, weight.row_bytes(), to);
}

void CpuBackend::read_weight(void* dst, const Tensor& weight) {
  if (!in_panels(weight)) return read(dst, weight);
  pool_.chunks(weight.rows(), kPanelRows, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      read_panel_row(
          weight, r,
          static_cast<std::byte*>(dst) + static_cast<std::size_t>(r) * weight.row_bytes());
    }
  });
}

}  // namespace qwen
