// Tensor: a view of contiguous memory with a type and a shape. It owns nothing.
//
// The project's vocabulary for dimensions, spelled the same everywhere:
//   n_tokens    rows of a step: one per token, of any sequence
//   n_seqs      sequences that share the cache
//   n_heads     query heads; n_kv_heads: key/value heads (n_heads is a multiple of it)
//   head_dim    elements per head
//   dim         width of the residual stream; ffn_dim: width of the feed-forward layer
//   n_vocab     rows of the output head
//   kv_len      keys that a token attends to (its position + 1)
//   pos, seq    position of a token within its sequence; index of that sequence
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "core/dtype.h"

namespace qwen {

struct Tensor {
  static constexpr int kMaxRank = 4;

  std::byte* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  std::array<std::int64_t, kMaxRank> shape{};  // outermost first; the last one is contiguous

  Tensor() = default;
  Tensor(void* memory, DType type, std::span<const std::int64_t> dims);
  Tensor(void* memory, DType type, std::initializer_list<std::int64_t> dims)
      : Tensor(memory, type, std::span(dims.begin(), dims.size())) {}

  std::int64_t size() const;                             // elements
  std::int64_t cols() const { return shape[rank - 1]; }  // elements of a row
  std::int64_t rows() const;                             // rows of the last dimension
  std::size_t row_bytes() const { return bytes_of(dtype, cols()); }
  std::size_t bytes() const { return static_cast<std::size_t>(rows()) * row_bytes(); }
  std::span<const std::int64_t> dims() const {
    return {shape.data(), static_cast<std::size_t>(rank)};
  }
  bool empty() const { return data == nullptr; }

  // Typed access; T must be the C++ type of dtype (float for F32, int32_t for I32, ...).
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
  float* f32() const {
    assert(dtype == DType::kF32);
    return as<float>();
  }
  std::int32_t* i32() const {
    assert(dtype == DType::kI32);
    return as<std::int32_t>();
  }
  std::byte* row(std::int64_t r) const { return data + r * static_cast<std::int64_t>(row_bytes()); }

  // Rows [begin, end) of the outermost dimension.
  Tensor slice(std::int64_t begin, std::int64_t end) const;
  // The same elements with another shape of the same size.
  Tensor reshape(std::initializer_list<std::int64_t> dims) const;
  // True if the two views share at least one byte.
  bool overlaps(const Tensor& other) const;
};

// "(12, 896)"
std::string shape_string(std::span<const std::int64_t> dims);
// "F32 (12, 896)"
std::string to_string(const Tensor& t);

}  // namespace qwen
