// The tensor directory of a GGUF file: reads the infos and checks that the tensors tile the data
// section. Internal to the loader.
#pragma once

#include <cstdint>
#include <vector>

#include "loader/gguf.h"
#include "loader/reader.h"

namespace qwen {

struct TensorDirectory {
  std::vector<TensorInfo> tensors;  // in the order of the file
  NameIndex by_name;
  std::uint64_t data_offset = 0;
};

// `reader` stands at the first info; `alignment` is a valid one. Throws an Error for whatever is
// wrong.
TensorDirectory read_tensor_directory(Reader& reader, const Source& source, std::uint64_t n_tensors,
                                      std::uint32_t alignment);

}  // namespace qwen
