#include "core/model_file.h"

#include "core/error.h"

namespace qwen {
namespace {

template <class T>
T required(std::optional<T> value, std::string_view key) {
  if (value) return *value;
  throw Error({.exit = Exit::kModel,
               .code = "missing_key",
               .message = "metadata key '" + std::string(key) + "' is missing",
               .hint = "the file is incomplete; convert or download it again",
               .key = std::string(key)});
}

}  // namespace

std::uint32_t ModelFile::u32(std::string_view key) const { return required(find_u32(key), key); }
float ModelFile::f32(std::string_view key) const { return required(find_f32(key), key); }
std::string ModelFile::string(std::string_view key) const {
  return required(find_string(key), key);
}

}  // namespace qwen
