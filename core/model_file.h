// What a model reads when it is built: hyper-parameters by key and weights by name. loader/
// implements it for GGUF; tests may implement it in memory. core knows no file format.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "core/tensor.h"

namespace qwen {

class ModelFile {
 public:
  virtual ~ModelFile() = default;

  // The value of a metadata key. An absent key is nullopt; a key of another type is an Error
  // (Exit::kModel) that names the key, the expected and the actual type.
  virtual std::optional<std::uint32_t> find_u32(std::string_view key) const = 0;
  virtual std::optional<float> find_f32(std::string_view key) const = 0;
  virtual std::optional<std::string> find_string(std::string_view key) const = 0;

  // The same, but an absent key is an Error that names it: nothing is defaulted.
  std::uint32_t u32(std::string_view key) const;
  float f32(std::string_view key) const;
  std::string string(std::string_view key) const;

  virtual bool has_tensor(std::string_view name) const = 0;

  // The shape of a tensor, outermost first. Throws an Error if there is none of that name.
  virtual std::span<const std::int64_t> tensor_shape(std::string_view name) const = 0;

  // Hands out a weight, once. Throws an Error if it is absent, of another shape, or was taken
  // before. The memory belongs to the file and is read-only.
  virtual Tensor take(std::string_view name, std::initializer_list<std::int64_t> shape) = 0;

  // Throws an Error naming a tensor that nobody took.
  virtual void check_all_taken() const = 0;

  // Says that nobody is about to read this weight again: its pages may go. Its memory stays valid.
  virtual void release(const Tensor& /*weight*/) const {}

  // Throws an Error if the memory of the weights is no longer what it was when the file was opened.
  virtual void check_unchanged() const {}
};

}  // namespace qwen
