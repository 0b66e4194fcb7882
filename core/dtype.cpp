#include "core/dtype.h"

#include <array>
#include <cassert>

#include "core/blocks.h"

namespace qwen {
namespace {

constexpr std::size_t kIds = 31;  // one more than the largest GGUF id that has a row

// Rows by GGUF id; ids without a row are null.
const std::array<const DTypeInfo*, kIds>& rows_by_id() {
  static const std::array<const DTypeInfo*, kIds> rows = [] {
    std::array<const DTypeInfo*, kIds> by_id{};
    for (const DTypeInfo& row : dtype_table()) by_id[static_cast<std::size_t>(row.dtype)] = &row;
    return by_id;
  }();
  return rows;
}

}  // namespace

const DTypeInfo& info(DType dtype) {
  const DTypeInfo* row = rows_by_id()[static_cast<std::size_t>(dtype)];
  assert(row != nullptr);
  return *row;
}

const DTypeInfo* find_dtype(std::uint32_t gguf_id) {
  return gguf_id < kIds ? rows_by_id()[gguf_id] : nullptr;
}

std::size_t bytes_of(DType dtype, std::int64_t n) {
  const DTypeInfo& row = info(dtype);
  assert(n >= 0 && n % row.block_size == 0);
  return static_cast<std::size_t>(n / row.block_size * row.block_bytes);
}

void decode(DType dtype, const void* src, std::int64_t n, float* out) {
  const DTypeInfo& row = info(dtype);
  assert(row.decode_block != nullptr && n % row.block_size == 0);
  const auto* bytes = static_cast<const std::byte*>(src);
  for (std::int64_t i = 0; i < n; i += row.block_size, bytes += row.block_bytes) {
    row.decode_block(bytes, out + i);
  }
}

}  // namespace qwen
