// Activations as 8-bit integers: what fast paths multiply quantised weights with.
//
// A row is rounded in blocks of 32 columns, each with a step of its own: the block's largest
// magnitude / 127, rounded up to nine bits. Blocks whose largest magnitude is more than `fine_from`
// times the mean of the row's are rounded to multiples of step / 128 instead: a few make most of
// the error. Measured (Qwen2.5-Coder-0.5B Q4_K_M, 1,604 tokens of tests/golden/logits.jsonl, mean
// |d logprob|, KL divergence from FP32, likeliest token kept): no such blocks 0.0183, 4.6e-4,
// 98.5 %; from 2 times the mean on 0.0119, 1.9e-4, 98.8 %; 1.5 times 0.0112, 1.5e-4, 99.5 %. The
// head alone makes 0.0110 of the first of these.
//
// A rounded value is an integer of at most 14 bits times a number of nine, so it is an FP32 number:
// who computes with the integers and who computes with the rounded values differ only in how they
// round sums.
#pragma once

#include <cstdint>
#include <vector>

namespace qwen {

inline constexpr std::int64_t kInt8Block = 32;
// Of steps in a step of a block that is rounded finely.
inline constexpr int kInt8Fine = 128;

// How the values of one block are rounded: to the nearest multiple of `unit`, ties to even.
struct Int8Rounding {
  // 0: all values are below 2^-100 and become 0. Not-a-number: one of them is not below 2^110, and
  // all become not-a-number.
  float step = 0;
  bool fine = false;
  float unit() const { return fine ? step / kInt8Fine : step; }
};

// The step of a block whose largest magnitude is `largest`: infinite or not-a-number if a value is.
float int8_step(float largest);
// Whether that block is rounded finely; `sum` is that of all n_blocks largest magnitudes, added in
// order.
bool int8_is_fine(float largest, double sum, std::int64_t n_blocks, double fine_from);

// Of each block of a row. `n` is a multiple of kInt8Block.
std::vector<Int8Rounding> int8_roundings(const float* row, std::int64_t n, double fine_from);

// Rounds a row. `n` is a multiple of kInt8Block.
void round_to_int8(float* row, std::int64_t n, double fine_from);

}  // namespace qwen
