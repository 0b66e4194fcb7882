// What has happened to a weight that differs from the file's.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace qwen::crosscheck {

// A weight of the file, and what it is called.
struct NamedWeight {
  std::string name;
  Tensor tensor;  // in host memory
};

// "all zero", "shifted by 32 bytes", "holds layer 1 v_proj weight", ...; "unknown" if none fits.
// `right` is the file's, `got` has as many bytes.
std::string cause_of(const Tensor& right, std::span<const std::byte> got,
                     const std::vector<NamedWeight>& others);

}  // namespace qwen::crosscheck
