// The usage error of the project.
#pragma once

#include <string>

#include "core/error.h"

namespace qwen::cli {

// Throws an Error (Exit::kUsage, "usage").
[[noreturn]] inline void usage_error(const std::string& message, const std::string& hint = {}) {
  throw Error({.exit = Exit::kUsage, .code = "usage", .message = message, .hint = hint});
}

}  // namespace qwen::cli
