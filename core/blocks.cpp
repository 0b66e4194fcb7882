#include "core/blocks.h"

#include <cstring>

namespace qwen {
namespace {

// The smallest sub-block of all formats: its elements share scale and minimum. With the number of
// the sub-block known to the compiler, it computes these once and the elements by vectors: three to
// six times as fast as one by one.
constexpr int kSubBlock = 16;

template <class Block>
void decode_quantised(const void* block, float* __restrict out) {
  const Block& b = *static_cast<const Block*>(block);
#pragma GCC unroll 16
  for (int first = 0; first < Block::kElements; first += kSubBlock) {
    for (int i = first; i < first + kSubBlock; ++i) out[i] = b.value(i);
  }
}

void decode_f32(const void* src, float* out) { std::memcpy(out, src, sizeof(float)); }

template <float (*kConvert)(std::uint16_t)>
void decode_16(const void* src, float* out) {
  std::uint16_t half;
  std::memcpy(&half, src, sizeof half);
  *out = kConvert(half);
}

template <class Block>
void decode_minima(const void* block, float* out) {
  const Block& b = *static_cast<const Block*>(block);
  for (int i = 0; i < Block::kElements; ++i) out[i] = b.minimum(i);
}

template <class Block>
constexpr DTypeInfo quantised(std::string_view name) {
  DTypeInfo row{Block::kDType, name, Block::kElements, sizeof(Block), decode_quantised<Block>};
  if constexpr (requires(const Block& b) { b.minimum(0); })
    row.minima_of_block = decode_minima<Block>;
  return row;
}

constexpr DTypeInfo kTable[] = {
    {DType::kF32, "F32", 1, 4, decode_f32},
    {DType::kF16, "F16", 1, 2, decode_16<f16_to_f32>},
    {DType::kBF16, "BF16", 1, 2, decode_16<bf16_to_f32>},
    quantised<BlockQ8_0>("Q8_0"),
    quantised<BlockQ4_0>("Q4_0"),
    quantised<BlockQ4_1>("Q4_1"),
    quantised<BlockQ5_0>("Q5_0"),
    quantised<BlockQ5_1>("Q5_1"),
    quantised<BlockQ2_K>("Q2_K"),
    quantised<BlockQ3_K>("Q3_K"),
    quantised<BlockQ4_K>("Q4_K"),
    quantised<BlockQ5_K>("Q5_K"),
    quantised<BlockQ6_K>("Q6_K"),
    quantised<BlockIQ4_NL>("IQ4_NL"),
    quantised<BlockIQ4_XS>("IQ4_XS"),
    {DType::kI8, "I8", 1, 1, nullptr},
    {DType::kI32, "I32", 1, 4, nullptr},
};

}  // namespace

std::span<const DTypeInfo> dtype_table() { return kTable; }

}  // namespace qwen
