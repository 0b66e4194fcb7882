// The shape of the evidence: what the places of an op's failed elements have in common.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/tensor.h"

namespace qwen::crosscheck {

// In words: one column, one head, a period, the last columns, late positions. `failed`: flat
// indices into `output` (n_tokens, ...), rising; `pos`: the positions of its rows, or empty. Empty
// if they have nothing in common.
std::string pattern_of(const Tensor& output, std::span<const std::int64_t> failed,
                       std::span<const std::int32_t> pos);

}  // namespace qwen::crosscheck
