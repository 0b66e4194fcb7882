#include "core/crosscheck/placed_op.h"

#include <algorithm>
#include <cstring>

namespace qwen::crosscheck {
namespace {

constexpr std::size_t kGuard = 256;  // bytes on either side; keeps every backend's alignment
constexpr std::uint8_t kGuardByte = 0xA5;

bool is_placed(const Op& op, std::string_view operand) {
  return (std::holds_alternative<Gemm>(op) && operand == "weight") ||
         (std::holds_alternative<Embed>(op) && operand == "table");
}

Tensor as_bytes(const Buffer& memory, std::size_t bytes) {
  return Tensor(memory.get(), DType::kI8, {static_cast<std::int64_t>(bytes)});
}

}  // namespace

PlacedOp::PlacedOp(Backend& backend, const Op& host) : backend_(backend), op_(host) {
  for (const Operand& operand : operands(op_)) {
    const Tensor from = *operand.tensor;
    Block block{std::string(operand.name), operand.access, {}, {}, 0};
    if (is_placed(op_, operand.name)) {
      block.tensor = backend.place_weight(from);
    } else {
      std::vector<std::uint8_t> image(from.bytes() + 2 * kGuard, kGuardByte);
      std::memcpy(image.data() + kGuard, from.data, from.bytes());
      block.bytes = image.size();
      block.memory = backend.allocate(image.size());
      backend.write(as_bytes(block.memory, block.bytes), image.data());
      block.tensor = Tensor(block.memory.get() + kGuard, from.dtype, from.dims());
    }
    *operand.tensor = block.tensor;
    blocks_.push_back(std::move(block));
  }
}

ReadOp::ReadOp(const PlacedOp& placed) {
  for (const PlacedOp::Block& from : placed.blocks_) {
    Block block{from.name, from.access, {}, std::vector<std::uint8_t>(from.bytes)};
    if (from.memory != nullptr) {
      placed.backend_.read(block.bytes.data(), as_bytes(from.memory, from.bytes));
      block.tensor = Tensor(block.bytes.data() + kGuard, from.tensor.dtype, from.tensor.dims());
    }
    if (writes(from.access)) outputs_.push_back(block.tensor);
    blocks_.push_back(std::move(block));
  }
}

std::string ReadOp::damage(const Op& host) const {
  Op copy = host;
  const Operands originals = operands(copy);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    if (block.bytes.empty()) continue;
    const auto is_guard = [](std::uint8_t byte) { return byte == kGuardByte; };
    const auto begin = block.bytes.begin();
    const auto end = block.bytes.end();
    if (!std::all_of(begin, begin + kGuard, is_guard)) return "a write before " + block.name;
    if (!std::all_of(end - kGuard, end, is_guard)) return "a write behind " + block.name;
    const Tensor& original = *originals[i].tensor;
    if (!writes(block.access) &&
        std::memcmp(block.tensor.data, original.data, original.bytes()) != 0) {
      return "a write to the input " + block.name;
    }
  }
  return "";
}

}  // namespace qwen::crosscheck
