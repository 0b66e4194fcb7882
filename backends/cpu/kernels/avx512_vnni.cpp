// Compiled for AVX-512 F, CD, DQ, BW, VL and VNNI.
#include "backends/cpu/kernels/int8_panels_avx512.h"
#include "backends/cpu/kernels/int8_rows_avx512.h"
#include "backends/cpu/kernels/int8_table.h"

namespace qwen::cpu {

const Kernels& avx512_vnni_kernels() {
  static constexpr Int8Kernels kInt8 = Int8TableMaker<Vnni>::make();
  static const Kernels kTable = [] {
    Kernels k = avx512_kernels();
    k.int8 = &kInt8;
    return k;
  }();
  return kTable;
}

}  // namespace qwen::cpu
