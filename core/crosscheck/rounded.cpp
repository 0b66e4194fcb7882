#include "core/crosscheck/rounded.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/int8.h"

namespace qwen::crosscheck {
namespace {

constexpr std::int64_t kGrain = 1 << 14;  // elements that a thread decodes and rounds at a time

// The weight's rows in F32, rounded.
Tensor rounded(const Tensor& weight, float scale, Backend& host, Scratch& scratch) {
  const std::int64_t n_cols = weight.cols();
  const Tensor out = scratch.take(DType::kF32, weight.dims());
  const std::int64_t grain = std::max<std::int64_t>(1, kGrain / n_cols);
  host.parallel_for(weight.shape[0], grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      float* const row = out.f32() + r * n_cols;
      decode(weight.dtype, weight.row(r), n_cols, row);
      round_to_halves(row, n_cols, scale);
    }
  });
  return out;
}

}  // namespace

// As round_to_f16(), but in masks instead of branches, so that the compiler uses vectors: it goes
// through whole weights. All bits of a mask are set where an integer is less than another.
void round_to_halves(float* values, std::int64_t n, float scale) {
  const auto bits_of = [](float v) { return std::bit_cast<std::int32_t>(v); };
  const auto less = [](std::int32_t a, std::int32_t b) { return (a - b) >> 31; };  // a, b >= 0
  constexpr std::int32_t kMagnitude = 0x7fffffff;
  constexpr float kAddend = 0.75f;  // the last bit of a sum with it is F16's smallest step
  const std::int32_t smallest_normal = bits_of(0x1p-14f);
  const std::int32_t overflow = bits_of(65520.0f);  // from here on infinite
  const float back = 1 / scale;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t given = bits_of(values[i]);
    const std::int32_t scaled = bits_of(values[i] * scale);
    const std::int32_t size = scaled & kMagnitude;
    const std::int32_t fits = less(size, overflow);
    const std::int32_t tie = scaled >> 13 & 1;
    const std::int32_t normal = ((size & fits) + 0xfff + tie) & ~0x1fff;
    const std::int32_t subnormal = bits_of((std::bit_cast<float>(size) + kAddend) - kAddend);
    const std::int32_t is_subnormal = less(size, smallest_normal);
    const std::int32_t half = (subnormal & is_subnormal) | (normal & ~is_subnormal);
    const std::int32_t result = bits_of(std::bit_cast<float>(half | (scaled & ~kMagnitude)) * back);
    values[i] = std::bit_cast<float>((result & fits) | (given & ~fits));
  }
}

Rounded rounded(const Op& op, const Contract& contract, Backend& host, Scratch& scratch) {
  Rounded result{op, contract};
  auto* gemm = std::get_if<Gemm>(&result.op);
  if (gemm == nullptr) return result;
  if (contract.int8_fine_from > 0) {
    gemm->x = scratch.copy(gemm->x);
    const std::int64_t n_cols = gemm->x.cols();
    host.parallel_for(gemm->x.rows(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        round_to_int8(gemm->x.f32() + t * n_cols, n_cols, contract.int8_fine_from);
      }
    });
    result.contract.int8_fine_from = 0;
    return result;
  }
  if (contract.input_scale == 0) return result;
  gemm->x = scratch.copy(gemm->x);
  round_to_halves(gemm->x.f32(), gemm->x.size(), contract.input_scale);
  result.contract.input_scale = 0;
  result.contract.input_unit = 0;
  result.contract.input_step = 0;
  if (contract.weight_scale != 0) {
    gemm->weight = rounded(gemm->weight, contract.weight_scale, host, scratch);
    result.contract.weight_scale = 0;
    result.contract.weight_unit = 0;
  }
  return result;
}

}  // namespace qwen::crosscheck
