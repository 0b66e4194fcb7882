// The weights in device memory, and how they get there.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "backends/cuda/memory.h"

namespace qwen::cuda {

class WeightStore {
 public:
  // `allocator` and `stream` must outlive the store.
  WeightStore(Allocator& allocator, cudaStream_t stream) : allocator_(allocator), stream_(stream) {}

  // Copies a weight to the device, quantised ones by planes (planar.h). Returns when the host
  // memory has been read; the copy may still be under way, in order with the stream.
  Tensor place(const Tensor& host);
  // Copies a weight back, in the file's layout.
  void read(void* to, const Tensor& weight);

 private:
  // Weights are small parts of large blocks of device memory.
  static constexpr std::size_t kBlockBytes = std::size_t{64} << 20;
  static constexpr std::size_t kAlignment = 256;
  // Two pinned buffers: one is filled while the other is copied. Large enough to hide the start of
  // a copy, small enough to be pinned in a few milliseconds.
  static constexpr std::size_t kStagingBytes = std::size_t{8} << 20;

  struct Staging {
    explicit Staging(Allocator& allocator)
        : pinned(allocator.pinned(kStagingBytes)), device(allocator.device(kStagingBytes)) {}
    Buffer pinned;
    Buffer device;  // blocks in the file's layout, before they are spread over planes
    Event done;
  };

  std::byte* take(std::size_t bytes);
  void upload(std::byte* to, const Tensor& host);

  Allocator& allocator_;
  cudaStream_t stream_;
  std::vector<Buffer> blocks_;
  std::size_t block_bytes_ = 0;  // of the last block
  std::size_t used_ = 0;
  std::array<std::unique_ptr<Staging>, 2> staging_;
  std::size_t turn_ = 0;
};

}  // namespace qwen::cuda
