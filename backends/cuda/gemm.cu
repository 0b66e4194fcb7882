// out[t][r] = sum_c w[r][c] x[t][c]; x, out FP32, w any format.
// Up to 8 tokens: tile/gemv.cuh, tiles of 8 rows, bound by the weights' bytes; FP32-grade operands.
// More: cuBLAS. Operands are F16 (x * 2^-6 so that 4 million does not overflow, quantised weights
// * 2^8 so that small ones keep their bits), sums FP32 on tensor cores. The weights of formats that
// cuBLAS does not know are decoded into the workspace, some rows at a time.
// exact, or F32 weights: FP32 operands and sums.
#include "backends/cuda/gemm.h"

#include "backends/cuda/cublas.h"
#include "backends/cuda/elementwise.h"
#include "backends/cuda/gemv.cuh"

namespace qwen::cuda {
namespace {

// Decoded weights that are in the workspace at a time: enough rows to fill the device.
constexpr std::size_t kDecodedBytes = std::size_t{64} << 20;
// Decoded weights are stored times this: the smallest normal half is then 2^-22, the largest 255.
constexpr float kWeightScale = 0x1p8f;

std::size_t rounded(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

struct GemmJob {
  int n_tiles, n_cols, n_tokens;
  const float* x;
  const float* gain;
  float eps;
  tile::Weights w;
  float* out;
  bool add;

  static constexpr bool kFewTiles = true;  // the rows of a down projection, say
  struct State {};
  __device__ const tile::Weights& weights(int, int) const { return w; }
  __device__ std::int64_t row(int tile, int i) const {
    return min(tile * tile::kRows + i, w.n_rows - 1);
  }
  __device__ State prepare(int, int, int) const { return {}; }
  __device__ void finish(State, int tile, int token, int i, float sum, float) const {
    const int r = tile * tile::kRows + i;
    if (r >= w.n_rows) return;
    float& to = out[static_cast<std::int64_t>(token) * w.n_rows + r];
    to = add ? to + sum : sum;
  }
};

__global__ void round_to_halves(__half* out, const float* x, std::int64_t n) {
  tile::let_next_start();
  tile::wait_for_inputs();
  const std::int64_t i = (std::int64_t{blockIdx.x} * kElementThreads + threadIdx.x) * 4;
  if (i + 3 < n) {
    const float4 v = *reinterpret_cast<const float4*>(x + i);
    const __half2 a = __floats2half2_rn(v.x * tile::kScale, v.y * tile::kScale);
    const __half2 b = __floats2half2_rn(v.z * tile::kScale, v.w * tile::kScale);
    *reinterpret_cast<__half2*>(out + i) = a;
    *reinterpret_cast<__half2*>(out + i + 2) = b;
    return;
  }
  for (std::int64_t j = i; j < n; ++j) out[j] = __float2half_rn(x[j] * tile::kScale);
}

__device__ void store(float* out, float v) { *out = v; }
__device__ void store(__half* out, float v) { *out = __float2half_rn(v * kWeightScale); }

// One thread per lane of a chunk.
template <class Format, class T>
__global__ void decode_blocks(T* out, const std::byte* data, std::int64_t n_blocks,
                              std::int64_t first_chunk, std::int64_t n_chunks) {
  const std::int64_t n = std::int64_t{blockIdx.x} * kElementThreads + threadIdx.x;
  const int t = static_cast<int>(n % 4);
  if (n / 4 >= n_chunks) return;
  const std::int64_t g = first_chunk + n / 4;
  float low[4], high[4];
  tile::decode_chunk<Format>(Format::load(data, n_blocks, g, t), static_cast<int>(g % 8), t, low,
                             high);
  T* to = out + n / 4 * 32 + 4 * t;
  for (int i = 0; i < 4; ++i) {
    store(to + i, low[i]);
    store(to + 16 + i, high[i]);
  }
}

template <class From, class T>
__global__ void convert(T* out, const From* in, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kElementThreads + threadIdx.x;
  if (i < n) store(out + i, tile::to_float(in[i]));
}

template <class Format>
struct DecodeRows;
template <class Format>
struct DecodeRows<tile::Blocks<Format>> {
  template <class T>
  static void run(T* out, const tile::Weights& w, std::int64_t first, std::int64_t rows,
                  const Launch& on) {
    const std::int64_t per_row = w.n_cols / 32;
    launch_kernel(decode_blocks<Format, T>, Start::kInOrder, element_blocks(rows * per_row * 4),
                  kElementThreads, 0, on, out, w.data, w.n_blocks, first * per_row, rows * per_row);
  }
};
template <class From>
struct ConvertRows {
  template <class T>
  static void run(T* out, const tile::Weights& w, std::int64_t first, std::int64_t rows,
                  const Launch& on) {
    launch_kernel(convert<From, T>, Start::kInOrder, element_blocks(rows * w.n_cols),
                  kElementThreads, 0, on, out,
                  reinterpret_cast<const From*>(w.data) + first * w.n_cols, rows * w.n_cols);
  }
};
template <>
struct DecodeRows<tile::Halves<false>> : ConvertRows<__half> {};
template <>
struct DecodeRows<tile::Wide<__nv_bfloat16, false>> : ConvertRows<__nv_bfloat16> {};
template <>
struct DecodeRows<tile::Wide<float, false>> : ConvertRows<float> {};

// Rows that are decoded at a time.
std::int64_t decoded_rows(const Tensor& weight, std::size_t element) {
  const auto row = static_cast<std::size_t>(weight.shape[1]) * element;
  return std::min<std::int64_t>(
      weight.shape[0], static_cast<std::int64_t>(std::max<std::size_t>(1, kDecodedBytes / row)));
}

// Calls multiply(rows decoded as T, first row, number) for all rows of `weight`.
template <class T, class Multiply>
void by_decoded_rows(const Tensor& weight, std::size_t at, const Launch& on,
                     const Multiply& multiply) {
  const tile::Weights w = weights_of(weight);
  auto* decoded = reinterpret_cast<T*>(on.workspace + at);
  const std::int64_t step = decoded_rows(weight, sizeof(T));
  for (std::int64_t first = 0; first < w.n_rows; first += step) {
    const std::int64_t rows = std::min<std::int64_t>(step, w.n_rows - first);
    with_format(weight.dtype,
                [&]<class Format>() { DecodeRows<Format>::run(decoded, w, first, rows, on); });
    multiply(decoded, first, rows);
  }
}

void multiply_f32(const Tensor& out, const Tensor& x, const Tensor& weight, bool add,
                  const Launch& on) {
  Product p{.out = out.f32(),
            .out_stride = weight.shape[0],
            .x = x.data,
            .w = weight.data,
            .n_tokens = static_cast<int>(x.shape[0]),
            .n_rows = static_cast<int>(weight.shape[0]),
            .n_cols = static_cast<int>(weight.shape[1]),
            .alpha = 1,
            .beta = add ? 1.0f : 0.0f};
  if (weight.dtype == DType::kF32) return on.cublas->multiply_f32(p);
  by_decoded_rows<float>(weight, 0, on, [&](const float* w, std::int64_t first, std::int64_t rows) {
    p.out = out.f32() + first;
    p.w = w;
    p.n_rows = static_cast<int>(rows);
    on.cublas->multiply_f32(p);
  });
}

}  // namespace

bool uses_gemv(const Gemm& op, const Launch& on) {
  return op.x.shape[0] <= kGemvTokens && fits_gemv(1, op.x.cols(), on);
}

bool fits_gemv(std::int64_t n_tokens, std::int64_t n_cols, const Launch& on) {
  return n_tokens <= gemv_max_tokens(n_cols, on);
}

void gemv(const GemvCall& call, const Launch& on) {
  const std::int64_t n_tokens = call.x.shape[0];
  const std::int64_t n_cols = call.x.shape[1];
  const std::int64_t most = gemv_max_tokens(n_cols, on);
  const tile::Weights w = weights_of(call.weight);
  for (std::int64_t first = 0; first < n_tokens; first += most) {
    const GemmJob job{.n_tiles = (w.n_rows + tile::kRows - 1) / tile::kRows,
                      .n_cols = w.n_cols,
                      .n_tokens = static_cast<int>(std::min(most, n_tokens - first)),
                      .x = call.x.f32() + first * n_cols,
                      .gain = call.gain,
                      .eps = call.eps,
                      .w = w,
                      .out = call.out.f32() + first * w.n_rows,
                      .add = call.add};
    const auto launch = [&]<class Format>() { launch_gemv<Format>(job, on); };
    if (n_cols % 32 == 0) {
      with_format(call.weight.dtype, launch);
    } else {
      with_ragged_format(call.weight.dtype, launch);
    }
  }
}

void multiply_halves(const Tensor& out, const std::byte* halves, const Tensor& weight, bool add,
                     std::size_t weights_at, const Launch& on) {
  Product p{.out = out.f32(),
            .out_stride = weight.shape[0],
            .x = halves,
            .w = weight.data,
            .n_tokens = static_cast<int>(out.shape[0]),
            .n_rows = static_cast<int>(weight.shape[0]),
            .n_cols = static_cast<int>(weight.shape[1]),
            .alpha = 1 / tile::kScale,
            .beta = add ? 1.0f : 0.0f};
  if (weight.dtype == DType::kF16) return on.cublas->multiply_f16(p);
  p.alpha /= kWeightScale;
  by_decoded_rows<__half>(weight, weights_at, on,
                          [&](const __half* w, std::int64_t first, std::int64_t rows) {
                            p.out = out.f32() + first;
                            p.w = w;
                            p.n_rows = static_cast<int>(rows);
                            on.cublas->multiply_f16(p);
                          });
}

void multiply(const Tensor& out, const Tensor& x, const Tensor& weight, bool add,
              const Launch& on) {
  if (multiplies_f32(weight.dtype, on.exact)) return multiply_f32(out, x, weight, add, on);
  auto* halves = reinterpret_cast<__half*>(on.workspace);
  launch_kernel(round_to_halves, Start::kMayOverlap, element_blocks((x.size() + 3) / 4),
                kElementThreads, 0, on, halves, x.f32(), x.size());
  multiply_halves(out, on.workspace, weight, add, halves_bytes(x.shape[0], x.shape[1]), on);
}

void launch(const Gemm& op, const Launch& on) {
  if (uses_gemv(op, on)) {
    gemv({.out = op.out, .x = op.x, .weight = op.weight}, on);
  } else {
    multiply(op.out, op.x, op.weight, false, on);
  }
}

bool multiplies_f32(DType weight, bool exact) { return exact || weight == DType::kF32; }

std::size_t halves_bytes(std::int64_t n_tokens, std::int64_t n_cols) {
  return rounded(static_cast<std::size_t>(n_tokens * n_cols) * sizeof(__half));
}

std::size_t workspace_bytes(const Gemm& op, bool exact) {
  const bool f32 = multiplies_f32(op.weight.dtype, exact);
  const bool decodes = op.weight.dtype != (f32 ? DType::kF32 : DType::kF16);
  const std::size_t element = f32 ? sizeof(float) : sizeof(__half);
  std::size_t bytes = f32 ? 0 : halves_bytes(op.x.shape[0], op.x.shape[1]);
  if (decodes) {
    bytes += rounded(
        static_cast<std::size_t>(decoded_rows(op.weight, element) * op.weight.shape[1]) * element);
  }
  return bytes;
}

Contract gemv_contract(const Gemm& op, const Launch& on) {
  // A warp adds its chunks of 32 columns one after the other. Then come the scale of a chunk, the
  // two halves, and the warps.
  const std::int64_t n_chunks = (op.x.cols() + 31) / 32;
  const std::int64_t n_warps = tile::gemv_warps(static_cast<int>(op.x.cols()));
  const std::int64_t per_warp = (n_chunks + n_warps - 1) / n_warps;
  return {.sum_depth = per_warp * (mma_units(32, on) + 2) + n_warps + 4,
          .truncates = true,
          .input_unit = 0x1p-22,
          .weight_unit = op.weight.dtype == DType::kF32 ? 0x1p-22 : 0.0,
          .input_step = 0x1p-36 / tile::kScale};
}

Contract multiply_contract(const Gemm& op, const Launch& on) {
  if (multiplies_f32(op.weight.dtype, on.exact)) return {.sum_depth = op.x.cols()};
  const bool halves = op.weight.dtype == DType::kF16;
  // cuBLAS does not say in which order it adds; at the end come partial sums and the scale.
  return {.sum_depth = mma_units(op.x.cols(), on) + 8,
          .truncates = true,
          .sum_block = on.mma_terms,
          .input_unit = 0x1p-11,
          .weight_unit = halves ? 0.0 : 0x1p-11,
          .input_step = 0x1p-25 / tile::kScale,
          .input_scale = tile::kScale,
          .weight_scale = halves ? 0 : kWeightScale};
}

}  // namespace qwen::cuda
