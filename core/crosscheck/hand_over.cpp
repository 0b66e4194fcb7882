#include "core/crosscheck/hand_over.h"

#include <iterator>
#include <utility>

namespace qwen::crosscheck {

void HandOver::wrote(const Tensor& where, const Tensor& copy) {
  if (copy.size() == 0) return;
  const std::byte* const end = where.data + copy.bytes();
  // Of what it lies in or overlaps, the rest is still there.
  std::vector<std::pair<const std::byte*, std::vector<std::byte>>> rests;
  auto at = left_.lower_bound(end);
  while (at != left_.begin()) {
    const auto before = std::prev(at);
    const std::byte* const begin = before->first;
    std::vector<std::byte>& bytes = before->second;
    if (begin + bytes.size() <= where.data) break;
    if (begin < where.data) {
      rests.push_back({begin, {bytes.begin(), bytes.begin() + (where.data - begin)}});
    }
    if (begin + bytes.size() > end) {
      rests.push_back({end, {bytes.begin() + (end - begin), bytes.end()}});
    }
    at = left_.erase(before);
  }
  for (auto& [begin, bytes] : rests) left_[begin] = std::move(bytes);
  left_[where.data] = {copy.data, copy.data + copy.bytes()};
}

Tensor HandOver::left(const Tensor& where) const {
  const auto after = left_.upper_bound(where.data);
  if (after == left_.begin()) return {};
  const auto& [begin, bytes] = *std::prev(after);
  if (where.data + where.bytes() > begin + bytes.size()) return {};
  // Tensors of host memory that is only read have no type of their own.
  return Tensor(const_cast<std::byte*>(bytes.data()) + (where.data - begin), where.dtype,
                where.dims());
}

}  // namespace qwen::crosscheck
