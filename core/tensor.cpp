#include "core/tensor.h"

namespace qwen {

Tensor::Tensor(void* memory, DType type, std::span<const std::int64_t> dims)
    : data(static_cast<std::byte*>(memory)), dtype(type), rank(static_cast<int>(dims.size())) {
  assert(rank >= 1 && rank <= kMaxRank);
  for (int i = 0; i < rank; ++i) shape[i] = dims[i];
}

std::int64_t Tensor::size() const {
  std::int64_t n = rank > 0 ? 1 : 0;
  for (int i = 0; i < rank; ++i) n *= shape[i];
  return n;
}

std::int64_t Tensor::rows() const {
  std::int64_t n = 1;
  for (int i = 0; i + 1 < rank; ++i) n *= shape[i];
  return n;
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t end) const {
  assert(0 <= begin && begin <= end && end <= shape[0]);
  Tensor t = *this;
  std::int64_t inner = 1;  // rows of the last dimension within one outermost index
  for (int i = 1; i + 1 < rank; ++i) inner *= shape[i];
  t.data += rank == 1 ? bytes_of(dtype, begin) : begin * inner * row_bytes();
  t.shape[0] = end - begin;
  return t;
}

Tensor Tensor::reshape(std::initializer_list<std::int64_t> dims) const {
  Tensor t(data, dtype, dims);
  assert(t.size() == size());
  return t;
}

bool Tensor::overlaps(const Tensor& other) const {
  return data < other.data + other.bytes() && other.data < data + bytes();
}

std::string shape_string(std::span<const std::int64_t> dims) {
  std::string s = "(";
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (i > 0) s += ", ";
    s += std::to_string(dims[i]);
  }
  return s + (dims.size() == 1 ? ",)" : ")");
}

std::string to_string(const Tensor& t) {
  return std::string(info(t.dtype).name) + " " + shape_string(t.dims());
}

}  // namespace qwen
