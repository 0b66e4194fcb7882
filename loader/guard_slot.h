// GuardSlot: the bounds of a guarded range, which a signal handler may read at any time, also while
// another thread gives the slot to another range. Internal to the loader.
#pragma once

#include <atomic>
#include <cstdint>

namespace qwen {

// Addresses; none of them if begin == end.
struct AddressRange {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  bool operator==(const AddressRange&) const = default;
};

class GuardSlot {
 public:
  // By one thread at a time.
  void set(AddressRange range) {
    ++generation_;
    begin_ = range.begin;
    end_ = range.end;
    ++generation_;
  }

  // Both bounds of one range, never the begin of one and the end of another. Empty if the slot is
  // being set: a range that somebody reads is not. Takes no lock, fit for a signal handler.
  AddressRange range() const {
    const std::uint32_t before = generation_;
    const AddressRange range = {begin_, end_};
    return before % 2 == 0 && generation_ == before ? range : AddressRange{};
  }

 private:
  std::atomic<std::uint32_t> generation_{0};  // odd while the slot is set
  std::atomic<std::uintptr_t> begin_{0};
  std::atomic<std::uintptr_t> end_{0};
  static_assert(std::atomic<std::uintptr_t>::is_always_lock_free &&
                std::atomic<std::uint32_t>::is_always_lock_free);
};

}  // namespace qwen
