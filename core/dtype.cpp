#include "core/dtype.h"

#include <algorithm>
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

namespace {

template <class Decode>
void decode_blocks(const DTypeInfo& row, Decode decode, const void* src, std::int64_t n,
                   float* out) {
  assert(n % row.block_size == 0);
  const auto* bytes = static_cast<const std::byte*>(src);
  for (std::int64_t i = 0; i < n; i += row.block_size, bytes += row.block_bytes) {
    decode(bytes, out + i);
  }
}

}  // namespace

void decode(DType dtype, const void* src, std::int64_t n, float* out) {
  assert(info(dtype).decode_block != nullptr);
  decode_blocks(info(dtype), info(dtype).decode_block, src, n, out);
}

void decode_minima(DType dtype, const void* src, std::int64_t n, float* out) {
  if (info(dtype).minima_of_block == nullptr) {
    std::fill_n(out, n, 0.0f);
  } else {
    decode_blocks(info(dtype), info(dtype).minima_of_block, src, n, out);
  }
}

}  // namespace qwen
