#include "core/crosscheck/faulty_file.h"

#include <algorithm>
#include <cstring>

namespace qwen::crosscheck {

std::optional<float> FaultyFile::find_f32(std::string_view key) const {
  const std::optional<float> value = file_.find_f32(key);
  if (fault_.kind != LoadFault::Kind::kNumber || !key.ends_with(fault_.name)) return value;
  n_wrong_ += value != fault_.value;
  return fault_.value;
}

Tensor FaultyFile::take(std::string_view name, std::initializer_list<std::int64_t> shape) {
  const Tensor right = file_.take(name, shape);
  const bool meant = fault_.kind != LoadFault::Kind::kNone &&
                     fault_.kind != LoadFault::Kind::kNumber && name.ends_with(fault_.name);
  const Tensor given = meant ? wrong(right) : right;
  n_wrong_ += given.data != right.data;
  taken_.push_back(right);
  return given;
}

Tensor FaultyFile::wrong(const Tensor& right) {
  if (fault_.kind == LoadFault::Kind::kOther) {
    const auto other = std::find_if(taken_.rbegin(), taken_.rend(), [&](const Tensor& t) {
      return t.dtype == right.dtype && t.rank == right.rank && t.shape == right.shape;
    });
    return other == taken_.rend() ? right : *other;
  }
  const Tensor made = memory_.copy(right);
  const std::size_t size = made.bytes();
  if (fault_.kind == LoadFault::Kind::kZeroed) {
    std::memset(made.data, 0, size);
  } else if (fault_.kind == LoadFault::Kind::kOffset) {
    constexpr std::size_t kOffset = 32;
    std::memcpy(made.data, right.data + kOffset, size - kOffset);
    std::memset(made.data + size - kOffset, 0, kOffset);
  } else {
    const std::int64_t half = made.cols() / info(made.dtype).block_size / 2;
    const auto bytes = static_cast<std::size_t>(half * info(made.dtype).block_bytes);
    for (std::int64_t r = 0; r < made.rows(); ++r) {
      std::swap_ranges(made.row(r), made.row(r) + bytes, made.row(r) + bytes);
    }
  }
  return made;
}

}  // namespace qwen::crosscheck
