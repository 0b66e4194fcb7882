#include "backends/cuda/weights.h"

#include <algorithm>
#include <cstring>

#include "backends/cuda/check.h"
#include "backends/cuda/planar.h"
#include "backends/cuda/repack.h"

namespace qwen::cuda {

std::byte* WeightStore::take(std::size_t bytes) {
  const std::size_t size = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (blocks_.empty() || size > block_bytes_ - used_) {
    // A large tensor gets its own memory, and the block in use stays open: little of it is lost.
    if (size > kBlockBytes / 16) {
      blocks_.insert(blocks_.begin(), allocator_.device(size));
      return blocks_.front().get();
    }
    blocks_.push_back(allocator_.device(kBlockBytes));
    block_bytes_ = kBlockBytes;
    used_ = 0;
  }
  std::byte* memory = blocks_.back().get() + used_;
  used_ += size;
  return memory;
}

Tensor WeightStore::place(const Tensor& host) {
  std::byte* memory = take(host.bytes());
  upload(memory, host);
  return Tensor(memory, host.dtype, host.dims());
}

void WeightStore::upload(std::byte* to, const Tensor& host) {
  const DTypeInfo& type = info(host.dtype);
  const bool planes = !plane_fields(host.dtype).empty();
  const std::int64_t n_blocks = host.size() / type.block_size;
  const auto per_turn = static_cast<std::int64_t>(kStagingBytes) / type.block_bytes;
  for (std::int64_t first = 0; first < n_blocks; first += per_turn) {
    const std::int64_t n = std::min(per_turn, n_blocks - first);
    const auto bytes = static_cast<std::size_t>(n * type.block_bytes);
    std::unique_ptr<Staging>& slot = staging_[turn_];
    turn_ = (turn_ + 1) % staging_.size();
    if (slot == nullptr) slot = std::make_unique<Staging>(allocator_);
    check(cudaEventSynchronize(slot->done));
    std::memcpy(slot->pinned.get(), host.data + first * type.block_bytes, bytes);
    std::byte* arrival = planes ? slot->device.get() : to + first * type.block_bytes;
    check(cudaMemcpyAsync(arrival, slot->pinned.get(), bytes, cudaMemcpyHostToDevice, stream_));
    if (planes) to_planes(to, arrival, host.dtype, n_blocks, first, n, stream_);
    check(cudaEventRecord(slot->done, stream_));
  }
}

void WeightStore::read(void* to, const Tensor& weight) {
  const std::byte* from = weight.data;
  Buffer blocks;
  if (!plane_fields(weight.dtype).empty()) {
    const std::int64_t n_blocks = weight.size() / info(weight.dtype).block_size;
    blocks = allocator_.device(weight.bytes());
    from_planes(blocks.get(), weight.data, weight.dtype, n_blocks, 0, n_blocks, stream_);
    from = blocks.get();
  }
  check(cudaMemcpyAsync(to, from, weight.bytes(), cudaMemcpyDeviceToHost, stream_));
  check(cudaStreamSynchronize(stream_));
}

}  // namespace qwen::cuda
