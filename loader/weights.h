// GgufModelFile: what a model reads when it is built, from a GGUF file.
#pragma once

#include <vector>

#include "core/model_file.h"
#include "loader/gguf.h"

namespace qwen {

// Takes the Gguf over. The tensors that it hands out are valid as long as the file's Source lives.
// Not thread-safe: take() keeps account. Every Error has Exit::kModel and names the file and the
// key or tensor.
class GgufModelFile : public ModelFile {
 public:
  explicit GgufModelFile(Gguf gguf);

  const Gguf& gguf() const { return gguf_; }

  // Exactly u32, f32 and string: another type is refused (wrong_type), whatever its value.
  std::optional<std::uint32_t> find_u32(std::string_view key) const override;
  std::optional<float> find_f32(std::string_view key) const override;
  std::optional<std::string> find_string(std::string_view key) const override;

  bool has_tensor(std::string_view name) const override;
  std::span<const std::int64_t> tensor_shape(std::string_view name) const override;
  // Refusals: missing_tensor, wrong_shape, tensor_taken_twice.
  Tensor take(std::string_view name, std::initializer_list<std::int64_t> shape) override;
  // Refusal: unknown_tensor, naming the first one of the file that nobody took.
  void check_all_taken() const override;
  void release(const Tensor& weight) const override;
  // Refusals: file_changed, read_error.
  void check_unchanged() const override;

 private:
  const TensorInfo& required(std::string_view name) const;
  Error refusal(std::string_view tensor, std::string code, const std::string& message,
                std::string hint = {}) const;

  Gguf gguf_;
  std::vector<bool> taken_;  // by index in gguf_.tensors()
};

}  // namespace qwen
