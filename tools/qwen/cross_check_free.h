// What cross-check says about free mode.
#pragma once

#include <string>

#include "core/crosscheck/free.h"
#include "tools/qwen/console.h"

namespace qwen::cli {

// {"kl_mean","kl_max","top1_agree","flips","flips_explained"}; nulls where not finite.
Json logits_json(const crosscheck::FreeResult& result);
// [{"seq","token","layer","path","twins"}]; layer null: of the logits.
Json drift_json(const crosscheck::FreeResult& result);
// One line.
std::string free_text(const crosscheck::FreeResult& result);

}  // namespace qwen::cli
