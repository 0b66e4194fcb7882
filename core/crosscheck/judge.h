// Judging the outputs of an op, element by element, by the bounds that follow from numeric
// contracts (core/contract.h).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/backend.h"
#include "core/contract.h"

namespace qwen::crosscheck {

enum class Verdict {
  kPass,
  kFail,
  kUnsound,  // the bounds are so wide that the check says nothing: never a pass
};

// One element of an output.
struct Element {
  std::int64_t index = 0;  // in the output, flat
  double got = 0;
  double expected = 0;
  double tolerance = 0;
  double error() const;
  // |error| / tolerance; 0 if there is no error, infinite if a value is not finite where the other
  // is, or if an exact value differs.
  double ratio() const;
};

// What is found out about one row of an output: a token's.
struct Row {
  // Of the largest ratio. That is beyond 1 if and only if the row failed. Of a product's row that
  // passed, the worst among the elements of largest error: a bound costs as much as an element.
  Element worst = {};
  bool same_bits = true;  // all elements have the expected bits
};

// How wide the bounds of an output are beside its values.
struct Spread {
  double median = 0;  // median bound over root mean square of the values; infinite if these are not
  // Share of the elements whose bound exceeds the largest value; 1 if that is so of a whole row.
  double beyond = 0;
  bool sound() const;
};

// What is found out about one output of one op.
struct Judgement {
  std::string_view output = {};  // "out", "lse", ...
  Verdict verdict = Verdict::kPass;
  std::int64_t n_elements = 0;
  std::int64_t n_failed = 0;  // of a product with kMaxListed or more: about
  // Of the largest ratio; where all passed, among those that come nearest to their bounds.
  Element worst = {};
  // If it failed: the worst of the first row (token) that has failed elements.
  Element first = {};
  std::vector<std::int64_t> failed = {};  // indices, at most kMaxListed
  static constexpr std::size_t kMaxListed = 4096;
  Spread spread = {};          // where all passed
  std::vector<Row> rows = {};  // if asked for, and not bit-exact
};

struct JudgeOptions {
  bool by_row = false;  // asks for Judgement::rows
  // Of a product that passed, a worst element whose ratio is not beyond this need not be found:
  // Judgement::worst may then be none.
  double known_worst = 0;
  Backend* host = nullptr;  // lends its threads
  // Which elements' bounds are looked at for the spread: from this of a scattered order on. As many
  // as are looked at lie between it and that of another op.
  std::uint64_t sample = 0;
};

// `op` lies in host memory and holds its inputs as they were before it ran; its outputs are
// `expected`, one tensor per written operand, in order, as an exact run leaves them, and `got`, as
// the judged run left them. The bound is the sum of the bounds of `contracts`. Ops of
// is_bit_exact() are compared bit for bit.
std::vector<Judgement> judge(const Op& op, const std::vector<Tensor>& expected,
                             const std::vector<Tensor>& got, const std::vector<Contract>& contracts,
                             const JudgeOptions& options = {});

// One tensor, by given bounds of its elements.
Judgement judge(const Tensor& expected, const Tensor& got, std::vector<double> bounds);

// The k-th of n elements to be sampled, at a place that no regular layout favours.
std::int64_t scattered(std::uint64_t k, std::int64_t n);

// The same for one tensor, bit for bit.
Judgement compare_bits(const Tensor& expected, const Tensor& got);

// Where element `index` of an output stands in its row: (column), (head, d), ...
std::vector<std::int64_t> coords_in_row(const Tensor& output, std::int64_t index);

// Whether rows [begin, end) of the outermost dimension have the same bits.
bool same_bits(const Tensor& a, const Tensor& b, std::int64_t begin, std::int64_t end);

// Ops that every backend must compute with the same bits, in tensors that are compared whole.
bool is_bit_exact(const Op& op);

}  // namespace qwen::crosscheck
