// out[t] = row ids[t] of the table, decoded. out FP32; table any format.
// One thread per 8 elements (a lane's part of a chunk of 32), blockIdx.y the token.
// Bytes: the rows and the output, once each. No arithmetic beyond the decoding, which is exact.
#include "backends/cuda/gemv.cuh"

namespace qwen::cuda {
namespace {

constexpr int kThreads = 128;

template <class T>
__global__ void embed_plain(float* out, const T* table, const int* ids, int dim) {
  tile::let_next_start();
  tile::wait_for_inputs();
  const int c = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (c >= dim) return;
  out[std::int64_t{blockIdx.y} * dim + c] =
      tile::to_float(table[std::int64_t{ids[blockIdx.y]} * dim + c]);
}

template <class Format>
__global__ void embed_blocks(float* out, const std::byte* table, std::int64_t n_blocks,
                             const int* ids, int dim) {
  tile::let_next_start();
  tile::wait_for_inputs();
  const int n = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  const int chunk = n / 4;
  const int t = n % 4;
  if (chunk >= dim / 32) return;
  const std::int64_t g = std::int64_t{ids[blockIdx.y]} * (dim / 32) + chunk;
  float low[4], high[4];
  tile::decode_chunk<Format>(Format::load(table, n_blocks, g, t), static_cast<int>(g % 8), t, low,
                             high);
  float* to = out + std::int64_t{blockIdx.y} * dim + 32 * chunk + 4 * t;
  for (int i = 0; i < 4; ++i) {
    to[i] = low[i];
    to[16 + i] = high[i];
  }
}

template <class Format>
struct Rows;
template <class Format>
struct Rows<tile::Blocks<Format>> {
  static void launch(const Embed& op, const tile::Weights& w, const Launch& on) {
    const dim3 grid(static_cast<unsigned>((w.n_cols / 8 + kThreads - 1) / kThreads),
                    static_cast<unsigned>(op.out.shape[0]));
    launch_kernel(embed_blocks<Format>, Start::kMayOverlap, grid, kThreads, 0, on, op.out.f32(),
                  w.data, w.n_blocks, op.ids.i32(), w.n_cols);
  }
};
template <class T>
struct PlainRows {
  static void launch(const Embed& op, const tile::Weights& w, const Launch& on) {
    const dim3 grid(static_cast<unsigned>((w.n_cols + kThreads - 1) / kThreads),
                    static_cast<unsigned>(op.out.shape[0]));
    launch_kernel(embed_plain<T>, Start::kMayOverlap, grid, kThreads, 0, on, op.out.f32(),
                  reinterpret_cast<const T*>(w.data), op.ids.i32(), w.n_cols);
  }
};
template <>
struct Rows<tile::Halves<false>> : PlainRows<__half> {};
template <>
struct Rows<tile::Wide<float, false>> : PlainRows<float> {};
template <>
struct Rows<tile::Wide<__nv_bfloat16, false>> : PlainRows<__nv_bfloat16> {};

}  // namespace

void launch(const Embed& op, const Launch& on) {
  const tile::Weights w = weights_of(op.table);
  with_format(op.table.dtype, [&]<class Format>() { Rows<Format>::launch(op, w, on); });
}

}  // namespace qwen::cuda
