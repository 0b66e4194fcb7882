// The one table of op cases.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "core/ops.h"
#include "tests/fixtures/random.h"

namespace qwen::testing {

// Host memory for the tensors of one op, each between guard words, freed together.
class GuardedMemory {
 public:
  // Contents: all bytes 0xff (not-a-number in the float types).
  Tensor take(DType dtype, std::initializer_list<std::int64_t> dims);
  // The name of the first tensor (by order of creation) whose guards were overwritten, or -1.
  int first_broken_guard() const;

 private:
  struct Block {
    std::vector<std::uint8_t> bytes;
    std::size_t used;
  };
  std::byte* data(std::size_t i) const;
  std::deque<Block> blocks_;
};

struct OpCase {
  std::string name;  // letters, digits and underscores
  // Builds the op with random inputs; outputs are poisoned.
  std::function<Op(GuardedMemory&, fixtures::Random&)> make;
};

// Every op over shapes that hide nothing: odd sizes, ragged batches of several sequences in
// shuffled pages, head_dim 64 to 128, groups 1 to 8, outlier biases whose q.k exceeds 65,504, every
// weight format.
std::vector<OpCase> op_cases();

}  // namespace qwen::testing
