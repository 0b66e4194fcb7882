#pragma once

#include <string_view>

namespace qwen::crosscheck {

// The text of verify.py, which goes into each bundle.
std::string_view verify_script();

}  // namespace qwen::crosscheck
