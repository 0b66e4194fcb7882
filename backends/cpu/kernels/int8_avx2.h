// The table of products of 8-bit integers for 256-bit registers.
#pragma once

#include "backends/cpu/kernels/int8.h"
#include "backends/cpu/kernels/int8_gemv_avx2.h"
#include "backends/cpu/kernels/int8_panels_avx2.h"
#include "backends/cpu/kernels/int8_rows_avx2.h"
#include "backends/cpu/kernels/levels_avx2.h"

namespace qwen::cpu {

template <class Arch>
struct Int8TableMaker {
  template <class Block>
  static constexpr Int8Format format() {
    using L = Levels32<Arch, Block>;
    return {.sub = L::kSub,
            .offset = L::kOffset,
            .has_min = L::kHasMin,
            .gemv = Gemv<Arch, Block>::run,
            .pack = pack<Arch, Block>,
            .multiply = multiply<Arch, PanelOf<L::kSub, L::kHasMin, L::kSigned, L::kChain>>};
  }
  template <class... Blocks>
  static constexpr void blocks(Int8Kernels& k) {
    ((k.formats[static_cast<std::size_t>(Blocks::kDType)] = format<Blocks>()), ...);
  }

  static constexpr Int8Kernels make() {
    Int8Kernels k{};
    blocks<BlockQ8_0, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ4_K, BlockQ5_K, BlockQ6_K,
           BlockIQ4_NL>(k);
    k.quantise = quantise<Arch>;
    return k;
  }
};

}  // namespace qwen::cpu
