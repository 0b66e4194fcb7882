// Fills the table of kernels for one instruction set. Included only by the file of that set.
#pragma once

#include "backends/cpu/kernels/formats.h"
#include "backends/cpu/kernels/matmul.h"
#include "backends/cpu/kernels/rowwise.h"

namespace qwen::cpu {

template <class Arch>
struct TableMaker {
  template <class Format>
  static constexpr void format(Kernels& k, DType dtype) {
    k.gemv[static_cast<std::size_t>(dtype)] = gemv<Arch, Format>;
    k.decode[static_cast<std::size_t>(dtype)] = decode_row<Arch, Format>;
  }
  template <class... Blocks>
  static constexpr void blocks(Kernels& k) {
    (format<BlockFormat<Arch, Blocks>>(k, Blocks::kDType), ...);
  }

  static constexpr Kernels make(std::string_view isa) {
    Kernels k{};
    k.isa = isa;
    k.lanes = Simd<Arch>::kLanes;
    k.tile_rows = Simd<Arch>::kTileRows;
    k.matmul = matmul<Arch>;
    format<FloatFormat<Arch, F32Format<Arch>>>(k, DType::kF32);
    format<FloatFormat<Arch, F16Format<Arch>>>(k, DType::kF16);
    format<FloatFormat<Arch, BF16Format<Arch>>>(k, DType::kBF16);
    blocks<BlockQ8_0, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ2_K, BlockQ3_K, BlockQ4_K,
           BlockQ5_K, BlockQ6_K, BlockIQ4_NL, BlockIQ4_XS>(k);
    k.transpose = transpose<Arch>;
    k.rms_norm = rms_norm<Arch>;
    k.silu_mul = silu_mul<Arch>;
    k.add = add<Arch>;
    k.rope = rope<Arch>;
    k.softmax = softmax<Arch>;
    k.first_largest = first_largest<Arch>;
    k.f32_to_f16 = f32_to_f16<Arch>;
    return k;
  }
};

}  // namespace qwen::cpu
