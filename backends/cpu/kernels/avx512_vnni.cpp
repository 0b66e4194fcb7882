// Compiled for AVX-512 F, CD, DQ, BW, VL and VNNI.
#include "backends/cpu/kernels/int8.h"
#include "backends/cpu/kernels/int8_gemv_avx512.h"
#include "backends/cpu/kernels/int8_panels_avx512.h"
#include "backends/cpu/kernels/int8_rows_avx512.h"
#include "backends/cpu/kernels/levels_avx512.h"

namespace qwen::cpu {
namespace {

template <class... Blocks>
Int8Kernels make() {
  Int8Kernels k{};
  ((k.formats[static_cast<std::size_t>(Blocks::kDType)] =
        {.sub = Levels<Blocks>::kSub,
         .offset = Levels<Blocks>::kOffset,
         .has_min = Levels<Blocks>::kHasMin,
         .gemv = gemv<Blocks>,
         .pack = pack<Blocks>,
         .multiply = multiply<Levels<Blocks>::kSub, Levels<Blocks>::kHasMin>}),
   ...);
  k.quantise = quantise<Vnni>;
  return k;
}

}  // namespace

const Kernels& avx512_vnni_kernels() {
  static const Int8Kernels kInt8 = make<BlockQ8_0, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1,
                                        BlockQ4_K, BlockQ5_K, BlockQ6_K, BlockIQ4_NL>();
  static const Kernels kTable = [] {
    Kernels k = avx512_kernels();
    k.int8 = &kInt8;
    return k;
  }();
  return kTable;
}

}  // namespace qwen::cpu
