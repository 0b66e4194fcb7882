// Compiled for AVX-512 F, CD, DQ, BW and VL.
#include "backends/cpu/kernels/simd_avx512.h"

#include "backends/cpu/kernels/table.h"

namespace qwen::cpu {

const Kernels& avx512_kernels() {
  static constexpr Kernels kTable = TableMaker<Avx512>::make("avx512");
  return kTable;
}

}  // namespace qwen::cpu
