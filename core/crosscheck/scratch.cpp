#include "core/crosscheck/scratch.h"

#include <cstring>

namespace qwen::crosscheck {

Tensor Scratch::take(DType dtype, std::span<const std::int64_t> dims) {
  Tensor t(nullptr, dtype, dims);
  const std::size_t lines = (t.bytes() + sizeof(Line) - 1) / sizeof(Line);
  if (used_ == blocks_.size()) blocks_.emplace_back();
  Block& block = blocks_[used_++];
  if (block.lines < lines) block = {allocate(lines), lines};
  t.data = block.memory.get();
  return t;
}

Buffer Scratch::allocate(std::size_t lines) {
  if (backend_ != nullptr) return backend_->allocate_host(lines * sizeof(Line));
  return {reinterpret_cast<std::byte*>(new Line[lines]),
          [](std::byte* memory) { delete[] reinterpret_cast<Line*>(memory); }};
}

Tensor Scratch::copy(const Tensor& host) {
  const Tensor t = take(host.dtype, host.dims());
  std::memcpy(t.data, host.data, host.bytes());
  return t;
}

Op copy_of(const Op& host, Scratch& scratch) {
  Op op = host;
  for (const Operand& operand : operands(op)) {
    if (operand.access != Access::kConstant) *operand.tensor = scratch.copy(*operand.tensor);
  }
  return op;
}

Op with_own_outputs(const Op& host, Scratch& scratch) {
  Op op = host;
  for (const Operand& operand : operands(op)) {
    Tensor& t = *operand.tensor;
    if (operand.access == Access::kWrite) t = scratch.take(t.dtype, t.dims());
    if (operand.access == Access::kReadWrite) t = scratch.copy(t);
  }
  return op;
}

std::vector<Tensor> written(Op& op) {
  std::vector<Tensor> all;
  for (const Operand& operand : operands(op)) {
    if (writes(operand.access)) all.push_back(*operand.tensor);
  }
  return all;
}

Tensor output_of(const Op& op) {
  Op copy = op;
  return *operands(copy).front().tensor;
}

void fill(Backend& backend, const Tensor& tensor, std::uint32_t word) {
  const std::vector<std::uint32_t> words((tensor.bytes() + sizeof word - 1) / sizeof word, word);
  backend.write(tensor, words.data());
}

bool is_cache(const Operand& operand) {
  return operand.name == "k_cache" || operand.name == "v_cache";
}

bool is_given(const Operand& operand) {
  return operand.access == Access::kRead && operand.tensor->dtype != DType::kF32 &&
         !is_cache(operand);
}

}  // namespace qwen::crosscheck
