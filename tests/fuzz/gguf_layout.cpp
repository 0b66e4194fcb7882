#include "tests/fuzz/gguf_layout.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace qwen::fuzz {
namespace {

constexpr std::uint32_t kString = 8, kArray = 9;
// By value type; 0: not of a fixed size.
constexpr std::array<std::size_t, 13> kSizes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
constexpr std::uint64_t kElements = 4;  // of an array that become fields

class Walk {
 public:
  explicit Walk(std::span<const std::byte> file) : file_(file) {}

  GgufLayout read() {
    number(4);
    number(4);
    const std::uint64_t n_infos = number(8), n_pairs = number(8);
    for (std::uint64_t i = 0; i < n_pairs && ok_; ++i) part(layout_.pairs, [this] { pair(); });
    for (std::uint64_t i = 0; i < n_infos && ok_; ++i) part(layout_.infos, [this] { info(); });
    layout_.head_end = pos_;
    return std::move(layout_);
  }

 private:
  template <class Read>
  void part(std::vector<Range>& parts, Read read) {
    const std::size_t begin = pos_;
    read();
    if (ok_) parts.push_back({begin, pos_});
  }

  // The number at the cursor; 0 past the end.
  std::uint64_t number(std::size_t width, bool is_field = true) {
    std::uint64_t value = 0;
    if (!skip(width)) return 0;
    std::memcpy(&value, file_.data() + pos_ - width, width);
    if (is_field) layout_.fields.push_back({pos_ - width, width});
    return value;
  }

  bool skip(std::uint64_t n) {
    ok_ = ok_ && n <= file_.size() - pos_;
    if (ok_) pos_ += n;
    return ok_;
  }

  void text(bool is_field = true) {
    const std::uint64_t length = number(8, is_field);
    if (skip(length) && is_field) layout_.texts.push_back({pos_ - length, pos_});
  }

  void pair() {
    text();
    value(static_cast<std::uint32_t>(number(4)), true);
  }

  void value(std::uint32_t type, bool is_field) {
    if (type == kString) {
      text(is_field);
    } else if (type == kArray) {
      array();
    } else if (type < kSizes.size()) {
      number(kSizes[type], is_field);
    } else {
      ok_ = false;
    }
  }

  void array() {
    const auto type = static_cast<std::uint32_t>(number(4));
    const std::uint64_t count = number(8);
    if (type == kArray) ok_ = false;
    for (std::uint64_t i = 0; i < count && ok_; ++i) {
      value(type, i < kElements || count - i <= kElements);
    }
  }

  void info() {
    text();
    const std::uint64_t rank = number(4);
    for (std::uint64_t i = 0; i < std::min<std::uint64_t>(rank, 8); ++i) number(8);
    number(4);
    number(8);
  }

  std::span<const std::byte> file_;
  std::size_t pos_ = 0;
  bool ok_ = true;
  GgufLayout layout_;
};

}  // namespace

GgufLayout read_layout(std::span<const std::byte> file) { return Walk(file).read(); }

}  // namespace qwen::fuzz
