// Attestation: whether a path was given the model that the oracle loaded from the file. The same
// step, recorded on both sides, must have the same ops with the same numbers and, read back through
// the handles that the path's ops use, the same weights, bit for bit. (What both sides take from
// the file by the same code is compared with the file by attest_file.h.)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/crosscheck/sides.h"

namespace qwen::crosscheck {

struct Finding {
  Tap tap;                   // the first op that uses it
  std::string operand;       // "weight", "bias", ...; or the field: "eps", "scale"
  std::string expected;      // as the file has it
  std::string got;           // as the path has it
  bool is_constant = false;  // of the right shape, with other values
  bool is_number = false;    // a field
  std::string cause = "unknown";
};

// A constant that differs: the oracle's, and the path's bytes in the file's layout.
struct WrongConstant {
  const std::byte* own;
  std::vector<std::byte> theirs;
};

struct Attestation {
  std::int64_t n_constants = 0;
  std::int64_t n_bytes = 0;
  std::vector<Finding> findings;
  std::vector<WrongConstant> wrong;  // valid as long as the oracle's model
};

// A number as findings show it.
std::string number(double v);

// `path` and `oracle` are recordings of the same step on the two sides.
Attestation attest(const Sides& sides, const Plan& path, const Plan& oracle);

}  // namespace qwen::crosscheck
