// NumPy's .npy files, format 1.0, in C order: the tensors of a repro bundle.
// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html)
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace qwen::crosscheck {

// Little-endian: '<f4', '<f8', '<f2', '<i4', '|i1', '|u1'.
enum class NpyType { kF4, kF8, kF2, kI4, kI1, kU1 };

struct NpyArray {
  NpyType type = NpyType::kF4;
  std::vector<std::int64_t> shape = {};  // outermost first; at least one dimension
  std::vector<std::byte> bytes = {};

  std::int64_t size() const;  // elements
};

// F32, F16, I32 and I8 as such; weights of other types as the bytes of their rows.
NpyArray to_npy(const Tensor& host);
NpyArray to_npy(std::span<const double> values);

// Throws Error (code "cannot_write").
void write_npy(const std::string& path, const NpyArray& array);

// Throws Error (Exit::kModel, code "damaged_npy") for a file that is missing, of another format or
// type, of more than `max_bytes`, or shorter or longer than its header says. Nothing is allocated
// before that is known.
NpyArray read_npy(const std::string& path, std::uint64_t max_bytes = std::uint64_t{1} << 30);

}  // namespace qwen::crosscheck
