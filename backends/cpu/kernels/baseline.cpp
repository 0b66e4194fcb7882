// The portable table: SSE2 on x86-64, NEON on 64-bit ARM.
#include "backends/cpu/kernels/simd.h"

#include "backends/cpu/kernels/table.h"

namespace qwen::cpu {

const Kernels& baseline_kernels() {
  static constexpr Kernels kTable = TableMaker<xsimd::default_arch>::make("baseline");
  return kTable;
}

}  // namespace qwen::cpu
