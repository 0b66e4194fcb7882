#include "tools/default_model/default_model.h"

#include <cstddef>
#include <span>
#include <string>

// Of default_model_bytes.S.
extern "C" const std::byte qwen_default_model_begin[];
extern "C" const std::byte qwen_default_model_end[];

namespace qwen {

std::shared_ptr<const Source> open_default_model() {
  return from_memory(std::span<const std::byte>(qwen_default_model_begin,
                                                static_cast<std::size_t>(qwen_default_model_end -
                                                                         qwen_default_model_begin)),
                     std::string(kDefaultModel));
}

}  // namespace qwen
