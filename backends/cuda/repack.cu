// Blocks <-> planes: one thread per 2 bytes of a field (every field is whole pairs of bytes).
// Bytes: each once in and once out; runs once per weight.
#include "backends/cuda/elementwise.h"
#include "backends/cuda/planar.h"
#include "backends/cuda/repack.h"

namespace qwen::cuda {
namespace {

// Field `field` of n blocks: pairs of bytes from `from` to `to`, with the strides of both sides.
struct Copy {
  std::byte* to;
  const std::byte* from;
  int to_stride, from_stride;
  int pairs;
};

__global__ void copy_field(Copy c, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kElementThreads + threadIdx.x;
  if (i >= n) return;
  const std::int64_t block = i / c.pairs;
  const std::int64_t pair = i % c.pairs;
  reinterpret_cast<std::uint16_t*>(c.to + block * c.to_stride)[pair] =
      reinterpret_cast<const std::uint16_t*>(c.from + block * c.from_stride)[pair];
}

// Calls copy(field, its plane's part that begins with block `first`).
template <class CopyField>
void for_each_plane(DType dtype, std::int64_t n_blocks, std::int64_t first, const CopyField& copy) {
  std::int64_t begin = 0;
  for (const PlaneField& field : plane_fields(dtype)) {
    copy(field, begin + first * field.bytes);
    begin += n_blocks * field.bytes;
  }
}

void queue(const Copy& c, std::int64_t n, cudaStream_t stream) {
  if (n == 0) return;
  copy_field<<<element_blocks(n * c.pairs), kElementThreads, 0, stream>>>(c, n * c.pairs);
  check_launch();
}

}  // namespace

bool has_device_code() {
  cudaFuncAttributes attributes{};
  const bool found = cudaFuncGetAttributes(&attributes, copy_field) == cudaSuccess;
  if (!found) cudaGetLastError();
  return found;
}

void to_planes(std::byte* planes, const std::byte* blocks, DType dtype, std::int64_t n_blocks,
               std::int64_t first, std::int64_t n, cudaStream_t stream) {
  const auto block_bytes = static_cast<int>(info(dtype).block_bytes);
  for_each_plane(dtype, n_blocks, first, [&](const PlaneField& f, std::int64_t at) {
    queue({planes + at, blocks + f.offset, f.bytes, block_bytes, f.bytes / 2}, n, stream);
  });
}

void from_planes(std::byte* blocks, const std::byte* planes, DType dtype, std::int64_t n_blocks,
                 std::int64_t first, std::int64_t n, cudaStream_t stream) {
  const auto block_bytes = static_cast<int>(info(dtype).block_bytes);
  for_each_plane(dtype, n_blocks, first, [&](const PlaneField& f, std::int64_t at) {
    queue({blocks + f.offset, planes + at, block_bytes, f.bytes, f.bytes / 2}, n, stream);
  });
}

}  // namespace qwen::cuda
