#include "core/crosscheck/rounded.h"

#include <bit>
#include <cmath>
#include <numeric>

namespace qwen::crosscheck {
namespace {

// Rows of a weight in F32.
Tensor decoded(const Tensor& weight, Backend& host, Scratch& scratch) {
  const std::int64_t n_rows = weight.shape[0];
  const Tensor ids = scratch.take(DType::kI32, {n_rows});
  std::iota(ids.i32(), ids.i32() + n_rows, 0);
  const Tensor out = scratch.take(DType::kF32, weight.dims());
  host(Embed{.out = out, .table = weight, .ids = ids});
  return out;
}

}  // namespace

// As round_to_f16(), but without a branch, since it goes through whole weights.
void round_to_halves(float* values, std::int64_t n, float scale) {
  constexpr float kSmallestNormal = 0x1p-14f;
  constexpr float kSubnormal = 0.75f;    // added, the sum's last bit is F16's smallest step
  constexpr float kOverflow = 65520.0f;  // from here on infinite
  const float back = 1 / scale;
  for (std::int64_t i = 0; i < n; ++i) {
    const float value = values[i] * scale;
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const float normal =
        std::bit_cast<float>((bits + 0xfffu + (bits >> 13 & 1u)) & ~std::uint32_t{0x1fff});
    const float magnitude = std::abs(value);
    const float subnormal = std::copysign((magnitude + kSubnormal) - kSubnormal, value);
    const float half = magnitude < kSmallestNormal ? subnormal : normal;
    values[i] = magnitude < kOverflow ? half * back : values[i];
  }
}

Rounded rounded(const Op& op, const Contract& contract, Backend& host, Scratch& scratch) {
  Rounded result{op, contract};
  auto* gemm = std::get_if<Gemm>(&result.op);
  if (gemm == nullptr || contract.input_scale == 0) return result;
  gemm->x = scratch.copy(gemm->x);
  round_to_halves(gemm->x.f32(), gemm->x.size(), contract.input_scale);
  result.contract.input_unit = 0;
  result.contract.input_step = 0;
  if (contract.weight_scale != 0) {
    gemm->weight = decoded(gemm->weight, host, scratch);
    round_to_halves(gemm->weight.f32(), gemm->weight.size(), contract.weight_scale);
    result.contract.weight_unit = 0;
  }
  return result;
}

}  // namespace qwen::crosscheck
