// The table of products of 8-bit integers of one instruction set: whoever includes this has its
// multiply() of panels and its quantise().
#pragma once

#include "backends/cpu/kernels/panels.h"

namespace qwen::cpu {

template <class Arch>
struct Int8TableMaker {
  template <class Block>
  static constexpr Int8Format format() {
    using At = PanelBlock<Arch, Block>;
    return {.sub = At::kSub,
            .offset = At::kOffset,
            .has_min = At::kHasMin,
            .to_panel = to_panel<Arch, Block>,
            .from_panel = from_panel<Arch, Block>,
            .multiply = multiply<Arch, StoredPanel<Arch, Block>>,
            .expand = expand<Arch, Block>,
            .multiply_expanded = multiply<Arch, ExpandedPanelOf<Arch, Block>>};
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
