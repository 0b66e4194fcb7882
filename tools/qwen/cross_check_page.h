// The report of a cross-check as one HTML file that needs nothing else to be read.
#pragma once

#include <string>
#include <string_view>

#include "core/crosscheck/shadow.h"
#include "tools/qwen/console.h"

namespace qwen::cli {

// Made of cross_check_page.html and .js when the program is built.
extern const std::string_view kPageHtml;
extern const std::string_view kPageScript;

// `document` is that of --json; with an array `drift` of {"seq","token","layer","path","twins"} its
// curves are drawn too. Of its divergences the first are shown. `shadow` has its checks
// (CrossCheckOptions::detail). `summary` is what is read where scripts do not run.
std::string cross_check_page(const Json& document, const crosscheck::ShadowResult& shadow,
                             const std::string& summary);

}  // namespace qwen::cli
