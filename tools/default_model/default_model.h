// The small model that is part of the program: default.gguf of this folder.
#pragma once

#include <memory>
#include <string_view>

#include "loader/source.h"

namespace qwen {

// What stands for it where a path is expected.
inline constexpr std::string_view kDefaultModel = "default";

// A view of the program's own read-only data.
std::shared_ptr<const Source> open_default_model();

}  // namespace qwen
