// Compiled for AVX2, FMA, F16C and AVX-VNNI.
#include "backends/cpu/kernels/int8_dot_avxvnni.h"
#include "backends/cpu/kernels/int8_panels_avx2.h"
#include "backends/cpu/kernels/int8_rows_avx2.h"
#include "backends/cpu/kernels/int8_table.h"

namespace qwen::cpu {

const Kernels& avxvnni_kernels() {
  static constexpr Int8Kernels kInt8 = Int8TableMaker<AvxVnni>::make();
  static const Kernels kTable = [] {
    Kernels k = avx2_kernels();
    k.isa = "avxvnni";
    k.int8 = &kInt8;
    return k;
  }();
  return kTable;
}

}  // namespace qwen::cpu
