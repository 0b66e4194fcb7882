#include "loader/scan.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/dtype.h"
#include "loader/source.h"

namespace qwen {

namespace {

std::optional<NotFinite> scan(const Gguf& gguf) {
  std::vector<float> values;
  for (const TensorInfo& t : gguf.tensors()) {
    const DTypeInfo& type = info(t.tensor.dtype);
    values.resize(static_cast<std::size_t>(type.block_size));
    const std::int64_t n_blocks = t.tensor.size() / type.block_size;
    for (std::int64_t block = 0; block < n_blocks; ++block) {
      type.decode_block(t.tensor.data + block * type.block_bytes, values.data());
      if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
        return NotFinite{std::string(t.name), block};
      }
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<NotFinite> find_not_finite(const Gguf& gguf) {
  return read_unchanged(*gguf.source(), [&] { return scan(gguf); });
}

}  // namespace qwen
