// Deliberately wrong ways to compute an op: what a path under test may have done instead of the
// right thing. A variant that reproduces the path's output names the cause. The same variants,
// planted in a path, are the faults that the self-test must catch.
#pragma once

#include <span>
#include <string_view>

#include "core/backend.h"
#include "core/crosscheck/scratch.h"

namespace qwen::crosscheck {

// What a variant works with: host memory for changed operands, and the reference to run changed ops
// on.
struct Workbench {
  Scratch& scratch;
  Backend& reference;
};

struct Variant {
  // What went wrong, as the report says it: "adjacent pairs (2i, 2i+1) rotated".
  std::string_view cause;
  // Narrower arithmetic instead of another formula: tried after the structural variants, since the
  // rounding that it allows for may cover a small structural error.
  bool is_noise = false;
  // Computes `op`, which lies in host memory of its own (copy_of()), in the wrong way. It may
  // change the fields of `op`; then the bounds of the changed op apply. False if it does not apply
  // to this op.
  bool (*run)(Workbench& bench, Op& op) = nullptr;
};

// Of the ops that work on each token by itself, and of those on the cache.
std::span<const Variant> token_variants();
std::span<const Variant> attention_variants();

// The variants of a Gemm give single elements, so that they can be tried on a few of a large
// product: sum = what comes out, size = the sum of the products' magnitudes.
struct WrongSum {
  double sum = 0;
  double size = 0;
};
class WeightReader;
struct GemmVariant {
  std::string_view cause;
  bool is_noise = false;
  bool (*element)(WeightReader& weight, const Gemm& op, std::int64_t token, std::int64_t row,
                  WrongSum& result) = nullptr;
};
std::span<const GemmVariant> gemm_variants();

// Elements of a weight in any format.
class WeightReader {
 public:
  explicit WeightReader(const Tensor& weight) : weight_(weight) {}
  std::int64_t rows() const { return weight_.shape[0]; }
  std::int64_t cols() const { return weight_.shape[1]; }
  // Row r, decoded; valid until the next call.
  const float* row(std::int64_t r);
  // The element at a flat index, as if the weight were one long row.
  double flat(std::int64_t index);

 private:
  // For who asks for most elements, one after the other in another block.
  void decode_whole();

  Tensor weight_;
  std::int64_t row_ = -1;
  std::int64_t block_ = -1;
  std::vector<float> decoded_;
  std::vector<float> block_values_;
  std::int64_t n_decoded_ = 0;  // by flat()
  std::vector<float> whole_;
};

// Runs the variant of that cause on the whole op, of whatever kind. False if there is none for it.
bool run_variant(std::string_view cause, Workbench& bench, Op& op);

}  // namespace qwen::crosscheck
