#include "tools/default_model/default_model.h"

#include <cstddef>
#include <span>
#include <string>

// Of default_model_bytes.S.
extern "C" const std::byte kQwenDefaultModelBegin[];
extern "C" const std::byte kQwenDefaultModelEnd[];

namespace qwen {

std::shared_ptr<const Source> open_default_model() {
  return from_memory(std::span<const std::byte>(
                         kQwenDefaultModelBegin,
                         static_cast<std::size_t>(kQwenDefaultModelEnd - kQwenDefaultModelBegin)),
                     std::string(kDefaultModel));
}

}  // namespace qwen
