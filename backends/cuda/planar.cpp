#include "backends/cuda/planar.h"

namespace qwen::cuda {
namespace {

// The offsets are those of the structs in core/blocks.h.
constexpr PlaneField kQ8_0[] = {{2, 32}, {0, 2}};
constexpr PlaneField kQ4_0[] = {{2, 16}, {0, 2}};
constexpr PlaneField kQ4_1[] = {{4, 16}, {0, 4}};
constexpr PlaneField kQ5_0[] = {{6, 16}, {2, 4}, {0, 2}};
constexpr PlaneField kQ5_1[] = {{8, 16}, {4, 4}, {0, 4}};
constexpr PlaneField kQ2_K[] = {{16, 64}, {0, 16}, {80, 4}};
constexpr PlaneField kQ3_K[] = {{32, 64}, {0, 32}, {96, 12}, {108, 2}};
constexpr PlaneField kQ4_K[] = {{16, 128}, {4, 12}, {0, 4}};
constexpr PlaneField kQ5_K[] = {{48, 128}, {16, 32}, {4, 12}, {0, 4}};
constexpr PlaneField kQ6_K[] = {{0, 128}, {128, 64}, {192, 16}, {208, 2}};
constexpr PlaneField kIQ4_XS[] = {{8, 128}, {0, 8}};

}  // namespace

std::span<const PlaneField> plane_fields(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
      return kQ8_0;
    case DType::kQ4_0:
    case DType::kIQ4_NL:
      return kQ4_0;
    case DType::kQ4_1:
      return kQ4_1;
    case DType::kQ5_0:
      return kQ5_0;
    case DType::kQ5_1:
      return kQ5_1;
    case DType::kQ2_K:
      return kQ2_K;
    case DType::kQ3_K:
      return kQ3_K;
    case DType::kQ4_K:
      return kQ4_K;
    case DType::kQ5_K:
      return kQ5_K;
    case DType::kQ6_K:
      return kQ6_K;
    case DType::kIQ4_XS:
      return kIQ4_XS;
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kI8:
    case DType::kI32:
      break;
  }
  return {};
}

}  // namespace qwen::cuda
