// How quantised weights lie in device memory: by planes. A GGUF block is a struct of fields
// (quants, scales, ...); on the device field f of all blocks of a tensor is contiguous, so that a
// warp reads whole aligned sectors whatever the size of a block. The bytes are those of the file,
// in another order: nothing is rounded, the size is the same, and the way back is as simple.
#pragma once

#include <cstdint>
#include <span>

#include "core/dtype.h"

namespace qwen::cuda {

// One field of a block, in order of the planes: plane f starts at n_blocks * (bytes of the fields
// before it). The widest fields come first, so that every plane is aligned for its loads.
struct PlaneField {
  int offset;  // in the file's block
  int bytes;
};

// Empty for the formats without blocks (F32, F16, BF16), which stay as they are.
std::span<const PlaneField> plane_fields(DType dtype);

}  // namespace qwen::cuda
