#include "loader/weights.h"

#include <algorithm>
#include <string>
#include <utility>

#include "loader/text.h"

namespace qwen {

GgufModelFile::GgufModelFile(Gguf gguf)
    : gguf_(std::move(gguf)), taken_(gguf_.tensors().size(), false) {}

std::optional<std::uint32_t> GgufModelFile::find_u32(std::string_view key) const {
  return gguf_.find_as<std::uint32_t>(key);
}

std::optional<float> GgufModelFile::find_f32(std::string_view key) const {
  return gguf_.find_as<float>(key);
}

std::optional<std::string> GgufModelFile::find_string(std::string_view key) const {
  const auto text = gguf_.find_as<std::string_view>(key);
  return text ? std::optional<std::string>(*text) : std::nullopt;
}

bool GgufModelFile::has_tensor(std::string_view name) const {
  return gguf_.find_tensor(name) != nullptr;
}

std::span<const std::int64_t> GgufModelFile::tensor_shape(std::string_view name) const {
  return required(name).tensor.dims();
}

Tensor GgufModelFile::take(std::string_view name, std::initializer_list<std::int64_t> shape) {
  const TensorInfo& info = required(name);
  const auto got = info.tensor.dims();
  if (!std::equal(got.begin(), got.end(), shape.begin(), shape.end())) {
    throw refusal(name, "wrong_shape",
                  "expected shape " + shape_string({shape.begin(), shape.size()}) + ", got " +
                      shape_string(got),
                  "the file does not fit its own hyper-parameters; convert it again");
  }
  const auto index = static_cast<std::size_t>(&info - gguf_.tensors().data());
  if (taken_[index]) {
    throw refusal(name, "tensor_taken_twice", "the model asked for this tensor twice");
  }
  taken_[index] = true;
  return info.tensor;
}

void GgufModelFile::release(const Tensor& weight) const {
  gguf_.source()->release({weight.data, weight.bytes()});
}

void GgufModelFile::check_unchanged() const { gguf_.source()->check_unchanged(); }

void GgufModelFile::check_all_taken() const {
  const auto left = std::find(taken_.begin(), taken_.end(), false);
  if (left == taken_.end()) return;
  const auto others = std::count(left, taken_.end(), false) - 1;
  throw refusal(gguf_.tensors()[static_cast<std::size_t>(left - taken_.begin())].name,
                "unknown_tensor",
                "tensor is not part of this architecture" +
                    (others > 0 ? " (nor are " + std::to_string(others) + " others)" : ""),
                "the model needs something that is not implemented, or more layers than its "
                "block_count says");
}

const TensorInfo& GgufModelFile::required(std::string_view name) const {
  if (const TensorInfo* info = gguf_.find_tensor(name)) return *info;
  throw refusal(name, "missing_tensor", "tensor is missing",
                "the file is incomplete; convert or download it again");
}

Error GgufModelFile::refusal(std::string_view tensor, std::string code, const std::string& message,
                             std::string hint) const {
  return Error({.exit = Exit::kModel,
                .code = std::move(code),
                .message = printable(tensor) + ": " + message,
                .hint = std::move(hint),
                .file = gguf_.source()->name(),
                .tensor = printable(tensor)});
}

}  // namespace qwen
