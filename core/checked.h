// The one integer type for sizes and offsets that come from a file or from a user. An overflow is
// sticky: a whole sum is written as it reads and asked once at the end whether it is true.
#pragma once

#include <cassert>
#include <cstdint>

namespace qwen {

class Checked {
 public:
  constexpr Checked(std::uint64_t value) : value_(value) {}  // implicit: 2 * n + Checked(k)

  constexpr bool overflowed() const { return overflowed_; }

  // True if the exact result is at most `limit`.
  constexpr bool fits(std::uint64_t limit) const { return !overflowed_ && value_ <= limit; }

  // The exact result; asking for one that overflowed is a programmer's error.
  constexpr std::uint64_t value() const {
    assert(!overflowed_);
    return value_;
  }

  friend constexpr Checked operator+(Checked a, Checked b) {
    Checked sum(a.value_ + b.value_);
    sum.overflowed_ = a.overflowed_ || b.overflowed_ || sum.value_ < a.value_;
    return sum;
  }

  friend constexpr Checked operator*(Checked a, Checked b) {
    Checked product(a.value_ * b.value_);
    product.overflowed_ =
        a.overflowed_ || b.overflowed_ || (b.value_ != 0 && a.value_ > UINT64_MAX / b.value_);
    return product;
  }

  // The next multiple of `alignment`, a power of two.
  constexpr Checked align_up(std::uint64_t alignment) const {
    Checked up = *this + (alignment - 1);
    up.value_ &= ~(alignment - 1);
    return up;
  }

 private:
  std::uint64_t value_;
  bool overflowed_ = false;
};

}  // namespace qwen
