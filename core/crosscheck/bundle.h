// A repro bundle: a failed op, cut down to what shows the failure, that can be run and judged again
// anywhere, without the model.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/crosscheck/shadow.h"

namespace qwen::crosscheck {

struct Bundle {
  Scratch memory = {};  // of all tensors below
  // In host memory, as it was before it ran. An op of its own right: fewer tokens, weight rows or
  // cache pages, which indices (ids, rows, pages) are changed to fit.
  Op op = {};
  std::vector<Tensor> got = {};          // what the path left in its outputs, in order
  std::vector<Contract> contracts = {};  // the bound is the sum of theirs
  Divergence divergence = {};            // as the run found it, in the whole op
  // Of the whole op, in rising order: the rows that are kept, and for a Gemm the columns of its
  // output. For a KvWrite `rows` are the pages of the cache.
  std::vector<std::int64_t> rows = {};
  std::vector<std::int64_t> columns = {};
  // By the reference, from the inputs alone:
  std::vector<Tensor> expected = {};
  std::vector<std::vector<double>> tolerances = {};  // of each output; none for is_bit_exact() ops
  std::vector<Judgement> judgements = {};
};

// What the tensors of a bundle take at most, in bytes: with its script and description it stays
// below 5 MB.
inline constexpr std::size_t kMaxBundleBytes = 4'500'000;

// Rows with failed elements, the first ones. None for an Advance, which has no numbers, and
// if one row alone is too large.
std::optional<Bundle> cut(const Evidence& evidence, Backend& reference);

// Fills in what the reference has to say. Throws Error (code "invalid_op") if op and outputs do not
// fit together, or an index points outside its tensor.
void judge_by(Backend& reference, Bundle& bundle);

// Of the output that the bundle's divergence names.
const Judgement& judgement(const Bundle& bundle);

// What a backend makes of a bundle's op, judged by the reference and its own contract. What depends
// on the shape of the whole op, such as the choice of a kernel, may be another than it was.
enum class Again {
  kRight,
  kSame,   // wrong, bit for bit as in the bundle
  kOther,  // wrong in another way
};
struct Rerun {
  Again again = Again::kRight;
  double ratio = 0;  // of the worst element
};
Rerun run_again(const Bundle& bundle, Backend& backend, Backend& reference);

}  // namespace qwen::crosscheck
