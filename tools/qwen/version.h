#pragma once

namespace qwen::cli {

// "0.1.0"
const char* version();

}  // namespace qwen::cli
