// Compiled for AVX2, FMA and F16C.
#include "backends/cpu/kernels/simd_avx2.h"

#include "backends/cpu/kernels/table.h"

namespace qwen::cpu {

const Kernels& avx2_kernels() {
  static constexpr Kernels kTable = TableMaker<Avx2>::make("avx2");
  return kTable;
}

}  // namespace qwen::cpu
