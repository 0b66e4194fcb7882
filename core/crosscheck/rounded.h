// The rounding of a product's operands, repeated: what then differs between a path and the oracle
// is only how the products are added up, which the bounds see a hundred times sharper than what
// rounding to F16 might have done.
#pragma once

#include "core/backend.h"
#include "core/crosscheck/scratch.h"

namespace qwen::crosscheck {

struct Rounded {
  Op op;              // with x and the weight as F32, in scratch memory
  Contract contract;  // what is left of it
};

// `op` lies in host memory; `host` lends its threads. Weights are decoded by their definition
// (core/dtype.h). Ops whose contract does not say how operands are rounded are returned as they
// are. A value that F16 cannot hold is left as it is, so that an overflow of the path shows.
Rounded rounded(const Op& op, const Contract& contract, Backend& host, Scratch& scratch);

// Each value times `scale`, a power of two, rounded to the nearest F16, ties to even, and divided
// by it again.
void round_to_halves(float* values, std::int64_t n, float scale);

}  // namespace qwen::crosscheck
