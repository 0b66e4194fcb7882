// The layout of panels (Int8Format::pack).
#pragma once

#include <cstdint>

#include "backends/cpu/kernels/int8.h"

namespace qwen::cpu {

// What a panel holds of kSub columns.
template <int kSub, bool kHasMin>
struct PanelPart {
  float scale[Int8Format::kPanelRows];
  float min[kHasMin ? Int8Format::kPanelRows : 0];
  std::uint8_t levels[kSub / 4][Int8Format::kPanelRows][4];
};

}  // namespace qwen::cpu
