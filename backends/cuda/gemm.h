// Matrix products with more tokens than a GEMV takes, through cuBLAS. Used by the Gemm op and by
// what fuses it.
#pragma once

#include "backends/cuda/launch.h"
#include "core/contract.h"

namespace qwen::cuda {

// Up to this many tokens a product reads the weights' own blocks (tile/gemv.cuh), beyond it through
// cuBLAS: its tiles hold 8 tokens.
inline constexpr std::int64_t kGemvTokens = 8;

// One product by tile/gemv.cuh, with what may be folded into it.
struct GemvCall {
  Tensor out;                   // (n_tokens, n_rows) F32
  Tensor x;                     // (n_tokens, n_cols) F32
  Tensor weight;                // (n_rows, n_cols)
  const float* gain = nullptr;  // (n_cols): x is brought to unit RMS and multiplied by this first
  float eps = 0;
  bool add = false;  // out += instead of out =
};
void gemv(const GemvCall& call, const Launch& on);
// Whether the Gemm op goes this way, and not through cuBLAS.
bool uses_gemv(const Gemm& op, const Launch& on);
// Whether one launch can take that many tokens.
bool fits_gemv(std::int64_t n_tokens, std::int64_t n_cols, const Launch& on);

// out (n_tokens, n_rows) F32 = x (n_tokens, n_cols) F32 * weight^T, or += with `add`. Operands are
// rounded to F16 unless on.exact or the weight is F32.
void multiply(const Tensor& out, const Tensor& x, const Tensor& weight, bool add, const Launch& on);

// The same with x already rounded: (n_tokens, n_cols) F16, times kScale (tile/mma.cuh). The weight
// is not F32. Scratch for the weight begins at `weights_at` in the workspace.
void multiply_halves(const Tensor& out, const std::byte* halves, const Tensor& weight, bool add,
                     std::size_t weights_at, const Launch& on);

// Bytes of `n_tokens` rows of `n_cols` halves, a whole number of 256.
std::size_t halves_bytes(std::int64_t n_tokens, std::int64_t n_cols);

// Whether `weight` and x go to cuBLAS as FP32.
bool multiplies_f32(DType weight, bool exact);

// How multiply() rounds.
Contract multiply_contract(const Gemm& op, const Launch& on);
// How tile/gemv.cuh rounds.
Contract gemv_contract(const Gemm& op, const Launch& on);

}  // namespace qwen::cuda
