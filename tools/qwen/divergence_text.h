// A divergence of the cross-check, as text and as JSON.
#pragma once

#include <string>
#include <string_view>

#include "core/crosscheck/shadow.h"
#include "tools/qwen/console.h"

namespace qwen::cli {

// Three digits: "3.1e-04".
std::string scientific(double v);

// The name of the value that is judged: the tap, and for attention's second output its own.
std::string value_name(const Tap& tap, std::string_view output);

// " layer 3", or nothing outside the layers.
std::string place(const Tap& tap);

// JSON has no infinity.
Json number(double v);

// {"token","layer","op","seq","coords","got","expected","error","tolerance","failed","of","pattern",
// "cause"}
Json divergence_json(const crosscheck::Divergence& d);

// Three lines: "FAIL token 12 layer 0 op attn_out ...", the figures, the cause.
std::string divergence_text(const crosscheck::Divergence& d);

}  // namespace qwen::cli
