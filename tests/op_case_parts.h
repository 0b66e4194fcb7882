// What the files of the case table share.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "tests/op_cases.h"

namespace qwen::testing {

// A tensor of random numbers.
Tensor floats(GuardedMemory& m, fixtures::Random& r, std::initializer_list<std::int64_t> dims,
              double deviation = 1);
Tensor integers(GuardedMemory& m, const std::vector<std::int32_t>& values);
// A poisoned F32 tensor.
Tensor output(GuardedMemory& m, std::initializer_list<std::int64_t> dims);
std::string type_name(DType dtype);

struct GemmShape {
  std::int64_t tokens, rows, cols;
  bool is_head = false;
};
OpCase gemm_case(DType dtype, const GemmShape& shape);

// A batch: for each sequence the positions whose tokens are in the step.
struct Batch {
  std::string name;
  std::vector<std::vector<std::int32_t>> positions;
  // Every token is of another sequence.
  bool decode() const;
};

struct Heads {
  std::int64_t n_heads, n_kv_heads, head_dim;
  std::string name() const;
};

// `dtype`: of the cache. `huge`: with outliers whose q.k exceeds 65,504.
OpCase attention_case(const Batch& batch, const Heads& heads, DType dtype, bool huge);

// Rope, KvWrite and Attention (cache_cases.cpp).
void add_cache_cases(std::vector<OpCase>& cases);

}  // namespace qwen::testing
