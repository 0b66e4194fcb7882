// The inner loops of the CPU backend, as a table of functions: one table per instruction set,
// chosen at run time. Nothing here knows about ops, threads or the layout of the cache.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace qwen::cpu {

// y[t * ldy + r] = sum_c weight[r][c] * x[t * ldx + c] for r in [row_begin, row_end).
struct GemvArgs {
  const std::byte* weight;
  std::size_t row_bytes;
  std::int64_t row_begin, row_end;
  std::int64_t n_cols;  // a multiple of the format's block size
  const float* x;
  std::int64_t ldx;
  std::int64_t n_tokens;
  float* y;
  std::int64_t ldy;
};

// c (m, n) = a (m, k) * b (k, n), or += if accumulate; rows are lda, ldb, ldc floats apart. n is a
// multiple of `lanes`. Element (i, j) is summed over k in order, whatever m and n are.
struct MatmulArgs {
  const float* a;
  std::int64_t lda;
  const float* b;
  std::int64_t ldb;
  float* c;
  std::int64_t ldc;
  std::int64_t m, n, k;
  bool accumulate;
};

// One query row meets one tile of scores (online softmax; Milakov & Gimelshein 2018,
// arXiv:1805.02867).
struct SoftmaxRow {
  float* scores;         // n_keys raw q.k in, exp(scale * s - max) out; 0 from n_valid on
  std::int64_t n_keys;   // a multiple of `lanes`
  std::int64_t n_valid;  // keys that the query may see; may be <= 0
  float scale;
  float* max;          // running maximum of the scaled scores; -inf before the first tile
  float* sum;          // running sum of exp(score - max)
  float* out;          // running weighted sum of values, rescaled when the maximum grows
  std::int64_t n_out;  // a multiple of `lanes`
};

struct Int8Kernels;  // int8.h

struct Kernels {
  static constexpr std::size_t kDTypes = 32;  // DType values index the tables

  std::string_view isa;
  std::int64_t lanes;      // floats per vector
  std::int64_t tile_rows;  // rows of matmul's register tile: a good multiple for m

  void (*matmul)(const MatmulArgs&);
  // Null for types that hold no weights. decode: `n` consecutive elements.
  std::array<void (*)(const GemvArgs&), kDTypes> gemv;
  std::array<void (*)(const std::byte* src, std::int64_t n, float* out), kDTypes> decode;

  // dst[c * ldd + r] = src[r * lds + c] for r < rows, c < cols.
  void (*transpose)(const float* src, std::int64_t lds, float* dst, std::int64_t ldd,
                    std::int64_t rows, std::int64_t cols);
  void (*rms_norm)(const float* x, const float* weight, float eps, std::int64_t n, float* out);
  void (*silu_mul)(const float* gate, const float* up, std::int64_t n, float* out);
  void (*add)(float* x, const float* y, std::int64_t n);
  // Rotates one head (2 * half elements) in place.
  void (*rope)(float* x, const float* cosine, const float* sine, std::int64_t half);
  void (*softmax)(const SoftmaxRow&);
  // The first of the largest that is a number; 0 if there is none above -infinity.
  std::int64_t (*first_largest)(const float* x, std::int64_t n);
  void (*f32_to_f16)(const float* src, std::int64_t n, std::uint16_t* dst);

  const Int8Kernels* int8;  // null: products are always taken in FP32
};

// The tables that this processor can run, the fastest first.
std::vector<const Kernels*> usable_kernels();

// One per instruction set that was compiled in; each is defined in a file of its own.
const Kernels& baseline_kernels();
const Kernels& avx2_kernels();
const Kernels& avxvnni_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512_vnni_kernels();

}  // namespace qwen::cpu
