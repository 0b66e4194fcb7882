// What a row of logits says about the next token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace qwen::cli {

// log(sum(exp(l))), in FP64; not finite if a logit is not-a-number or plus infinity.
double log_sum_exp(std::span<const float> logits);

// The ids of the `k` largest logits, or of all if there are fewer, the largest first; of equal ones
// the lower id.
std::vector<std::int32_t> likeliest(std::span<const float> logits, std::size_t k);

}  // namespace qwen::cli
