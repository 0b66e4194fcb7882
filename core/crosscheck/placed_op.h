// An op that lies in host memory on a backend, whatever memory that has.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"

namespace qwen::crosscheck {

// The tensors of an op, copied from host memory to a backend's, each between guard words. What a
// backend may store in its own way (Gemm's weight, Embed's table) goes through place_weight();
// `host` must outlive it.
class PlacedOp {
 public:
  PlacedOp(Backend& backend, const Op& host);
  const Op& op() const { return op_; }

 private:
  friend class ReadOp;
  struct Block {
    std::string name;
    Access access = Access::kRead;
    Tensor tensor;      // in the backend's memory
    Buffer memory;      // guard, tensor, guard; empty for a placed weight
    std::size_t bytes;  // of the memory
  };

  Backend& backend_;
  Op op_;
  std::vector<Block> blocks_;  // one per operand
};

// What a placed op left, copied back. Waits for the backend.
class ReadOp {
 public:
  explicit ReadOp(const PlacedOp& placed);
  // The tensors that the op writes, in order.
  const std::vector<Tensor>& outputs() const { return outputs_; }
  // What is wrong with the memory around the outputs: a guard that was overwritten, or an input
  // (of `host`, the op as it was placed) that is no longer the same. Empty if nothing.
  std::string damage(const Op& host) const;

 private:
  struct Block {
    std::string name;
    Access access;
    Tensor tensor;  // in `bytes`
    std::vector<std::uint8_t> bytes;
  };
  std::vector<Block> blocks_;
  std::vector<Tensor> outputs_;
};

}  // namespace qwen::crosscheck
