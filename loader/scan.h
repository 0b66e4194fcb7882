// A look at every weight of a file. A load does not take the time: a scale that is not a number is
// legal, if useless.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "loader/gguf.h"

namespace qwen {

struct NotFinite {
  std::string tensor;
  std::int64_t block;  // index in the tensor; of types without blocks: of the element
};

// The first block of the file, in the order of its tensors, that holds a NaN or an infinity.
// Decodes every weight. Throws what Source::check_unchanged throws.
std::optional<NotFinite> find_not_finite(const Gguf& gguf);

}  // namespace qwen
