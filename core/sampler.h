// How the next token is chosen: the definition that every backend's Sample op follows.
//
// 1. Repeat penalty p: the logit l of every token that occurred before becomes l > 0 ? l / p : l *
// p.
//    (Keskar et al. 2019, arXiv:1909.05858)
// 2. temp == 0: the largest logit wins, the lowest id among equals.
// 3. Candidates in order of falling logit (equal logits: rising id), at most top_k of them (0:
// all);
//    their weights are exp((l - l_max) / temp).
// 4. min_p drops the candidates whose weight is below min_p (the largest weight is 1).
// 5. top_p keeps the shortest prefix whose weights sum to at least top_p of the sum of all.
// 6. One uniform number picks among the rest in proportion to the weights.
//
// The uniform number is Philox4x32-10 (Salmon et al. 2011) of (seed, stream, position): the same
// draw on every backend, in every batch and for any number of threads.
#pragma once

#include <cstdint>
#include <span>

namespace qwen {

// One row of Sample::params, as 8 words of 32 bits.
struct SampleParams {
  float temp = 0;            // >= 0; 0 is greedy
  std::int32_t top_k = 0;    // 0: no limit
  float top_p = 1;           // (0, 1]; 1: no limit
  float min_p = 0;           // [0, 1]; 0: no limit
  float repeat_penalty = 1;  // > 0; 1: none
  std::uint32_t seed_low = 0;
  std::uint32_t seed_high = 0;
  std::uint32_t stream = 0;  // tells apart requests that share a seed
};
static_assert(sizeof(SampleParams) == 8 * sizeof(std::int32_t));

// A uniform number in [0, 1) with 53 random bits for the token that will stand at `pos`.
double uniform_draw(const SampleParams& params, std::int32_t pos);

// The id chosen from `logits` for position `pos`. seen[i] != 0 where token i occurred before; it
// has the size of `logits`. Not-a-number logits are never chosen (id 0 if nothing else is left).
std::int32_t sample(std::span<const float> logits, std::span<const std::int8_t> seen,
                    const SampleParams& params, std::int32_t pos);

}  // namespace qwen
