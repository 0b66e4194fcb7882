// Compiled for AVX2, FMA and F16C.
#include "backends/cpu/kernels/simd_avx2.h"

#include "backends/cpu/kernels/int8_panels_avx2.h"
#include "backends/cpu/kernels/int8_rows_avx2.h"
#include "backends/cpu/kernels/int8_table.h"
#include "backends/cpu/kernels/table.h"

namespace qwen::cpu {

const Kernels& avx2_kernels() {
  static constexpr Int8Kernels kInt8 = Int8TableMaker<Avx2>::make();
  static constexpr Kernels kTable = [] {
    Kernels k = TableMaker<Avx2>::make("avx2");
    k.int8 = &kInt8;
    return k;
  }();
  return kTable;
}

}  // namespace qwen::cpu
