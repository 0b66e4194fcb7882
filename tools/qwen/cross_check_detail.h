// What a cross-check says about outputs one by one, as JSON.
#pragma once

#include "core/crosscheck/shadow.h"
#include "tools/qwen/console.h"

namespace qwen::cli {

// "unsound_outputs", widest first, at most kMaxUnsound:
// [{"op","layer","seq","token","d","beyond","outputs"}]. `d` is null if values are not finite.
inline constexpr std::size_t kMaxUnsound = 32;
Json unsound_outputs(const crosscheck::ShadowResult& shadow);
// "loose": outputs with loose contracts, and how near they came to their bounds.
Json loose_outputs(const crosscheck::ShadowResult& shadow);

// The one with the largest spread. There must be one.
const crosscheck::Unsound& widest(const crosscheck::ShadowResult& shadow);

// "checks_detail", in execution order: [{"op","layer","output","shape","contract","verdict","seq",
// "token","coords","error","tolerance","ratio","d","tokens"}]. The place and the figures are those
// of the worst element; `contract` is null, and so are they, for what is compared bit for bit.
// `tokens`: [seq, token, ratio, same_bits] of each; a ratio is null beyond any tolerance.
Json checks_detail(const crosscheck::ShadowResult& shadow);

}  // namespace qwen::cli
