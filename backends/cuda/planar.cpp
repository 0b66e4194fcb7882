#include "backends/cuda/planar.h"

namespace qwen::cuda {
namespace {

// The offsets are those of the structs in core/blocks.h.
constexpr PlaneField kFieldsQ80[] = {{2, 32}, {0, 2}};
constexpr PlaneField kFieldsQ40[] = {{2, 16}, {0, 2}};
constexpr PlaneField kFieldsQ41[] = {{4, 16}, {0, 4}};
constexpr PlaneField kFieldsQ50[] = {{6, 16}, {2, 4}, {0, 2}};
constexpr PlaneField kFieldsQ51[] = {{8, 16}, {4, 4}, {0, 4}};
constexpr PlaneField kFieldsQ2K[] = {{16, 64}, {0, 16}, {80, 4}};
constexpr PlaneField kFieldsQ3K[] = {{32, 64}, {0, 32}, {96, 12}, {108, 2}};
constexpr PlaneField kFieldsQ4K[] = {{16, 128}, {4, 12}, {0, 4}};
constexpr PlaneField kFieldsQ5K[] = {{48, 128}, {16, 32}, {4, 12}, {0, 4}};
constexpr PlaneField kFieldsQ6K[] = {{0, 128}, {128, 64}, {192, 16}, {208, 2}};
constexpr PlaneField kFieldsIq4Xs[] = {{8, 128}, {0, 8}};

}  // namespace

std::span<const PlaneField> plane_fields(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
      return kFieldsQ80;
    case DType::kQ4_0:
    case DType::kIQ4_NL:
      return kFieldsQ40;
    case DType::kQ4_1:
      return kFieldsQ41;
    case DType::kQ5_0:
      return kFieldsQ50;
    case DType::kQ5_1:
      return kFieldsQ51;
    case DType::kQ2_K:
      return kFieldsQ2K;
    case DType::kQ3_K:
      return kFieldsQ3K;
    case DType::kQ4_K:
      return kFieldsQ4K;
    case DType::kQ5_K:
      return kFieldsQ5K;
    case DType::kQ6_K:
      return kFieldsQ6K;
    case DType::kIQ4_XS:
      return kFieldsIq4Xs;
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
