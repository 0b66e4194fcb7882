// Host memory for copies of an op's tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <span>
#include <vector>

#include "core/backend.h"
#include "core/ops.h"

namespace qwen::crosscheck {

// A quiet not-a-number that only copies of itself and what is computed from it can equal: what
// stands in an op's outputs before it runs.
inline constexpr std::uint32_t kPoison = 0x7fe5a5a5;

// Owns every tensor that it hands out; aligned to 64 bytes.
class Scratch {
 public:
  Scratch() = default;
  // Of memory that `backend`, which must outlive it, can copy to while it runs ops.
  explicit Scratch(Backend& backend) : backend_(&backend) {}
  Scratch(const Scratch&) = delete;  // a copy would not own what was handed out
  Scratch& operator=(const Scratch&) = delete;
  Scratch(Scratch&&) = default;
  Scratch& operator=(Scratch&&) = default;

  Tensor take(DType dtype, std::span<const std::int64_t> dims);
  Tensor take(DType dtype, std::initializer_list<std::int64_t> dims) {
    return take(dtype, std::span(dims.begin(), dims.size()));
  }
  // A tensor in host memory, copied.
  Tensor copy(const Tensor& host);
  // All of it is free again; what was handed out must not be used any more.
  void reset() { used_ = 0; }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  struct Block {
    Buffer memory = nullptr;
    std::size_t lines = 0;
  };

  Buffer allocate(std::size_t lines);

  Backend* backend_ = nullptr;
  std::deque<Block> blocks_;  // the first used_ are handed out
  std::size_t used_ = 0;
};

// The op, with copies of all it does not only read as a constant: `op` may be run without a change
// to the original's tensors.
Op copy_of(const Op& host, Scratch& scratch);

// The op, which leaves the original's tensors as they are: what it writes is its own.
Op with_own_outputs(const Op& host, Scratch& scratch);

// The tensors that the op writes, in order.
std::vector<Tensor> written(Op& op);
// The op's first operand: what it is run for.
Tensor output_of(const Op& op);

// Every 32 bits of a backend's tensor become `word`.
void fill(Backend& backend, const Tensor& tensor, std::uint32_t word);

// True for the key/value cache among an op's operands.
bool is_cache(const Operand& operand);
// True for what a step is given: ids, positions, pages, parameters of the sampler.
bool is_given(const Operand& operand);

}  // namespace qwen::crosscheck
