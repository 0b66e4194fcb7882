// Element types and the table that describes them. Quantised types store blocks of elements; the
// block layouts and their scalar decoders are in blocks.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace qwen {

// Numbered as the tensor types of GGUF, so that a file's type id needs no second table.
enum class DType : std::uint8_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kI8 = 24,
  kI32 = 26,
  kBF16 = 30,
};

struct DTypeInfo {
  DType dtype;
  std::string_view name;     // as GGUF spells it: "Q4_K"
  std::int64_t block_size;   // elements per block
  std::int64_t block_bytes;  // bytes per block
  // Decodes one block into `block_size` floats: the definition every faster decoder is checked
  // against. Null for the integer types, which hold no weights.
  void (*decode_block)(const void* block, float* out);
  // What each of those floats has had subtracted from scale times quant. Null for formats without a
  // minimum.
  void (*minima_of_block)(const void* block, float* out) = nullptr;
};

// The row of `dtype`. Every DType has one.
const DTypeInfo& info(DType dtype);

// The row with this GGUF id, or null for ids that the project does not know.
const DTypeInfo* find_dtype(std::uint32_t gguf_id);

// Bytes of `n` consecutive elements; `n` is a multiple of the block size.
std::size_t bytes_of(DType dtype, std::int64_t n);

// Decodes `n` consecutive elements (a multiple of the block size) of a float or quantised type.
void decode(DType dtype, const void* src, std::int64_t n, float* out);
// Their minima; 0 for formats that have none.
void decode_minima(DType dtype, const void* src, std::int64_t n, float* out);

}  // namespace qwen
