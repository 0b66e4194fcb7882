#include "loader/guarded_range.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <mutex>

#include "core/error.h"
#include "loader/guard_slot.h"

namespace qwen {
namespace {

// A signal handler can be given nothing, so the ranges are global. A slot is free while its range
// is empty.
struct Slot {
  GuardSlot bounds;
  std::atomic<std::uintptr_t> lost{0};  // the page that could not be read
};

std::array<Slot, 64> slots;
std::mutex slots_mutex;
std::uintptr_t page_bytes = 0;  // of the system; set with the handler
// Written only while ours is not installed.
struct sigaction action_before;
std::atomic<bool> before_spent{false};  // a handler for one time had its time

// Puts zeros in the place of the page at `address` and all that follow. True if it is ours.
bool replace_lost_pages(std::uintptr_t address) {
  for (Slot& slot : slots) {
    const AddressRange range = slot.bounds.range();
    if (address < range.begin || address >= range.end) continue;
    const std::uintptr_t page = address / page_bytes * page_bytes;
    std::uintptr_t none = 0;
    slot.lost.compare_exchange_strong(none, page);
    return mmap(reinterpret_cast<void*>(page), range.end - page, PROT_READ,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
  }
  return false;
}

// What would have happened without a guard.
void hand_on(siginfo_t* info, void* context, bool sent) {
  const struct sigaction& before = action_before;
  const bool default_now = (before.sa_flags & SA_RESETHAND) != 0 && before_spent.exchange(true);
  if (!default_now && (before.sa_flags & SA_SIGINFO) != 0) {
    return before.sa_sigaction(SIGBUS, info, context);
  }
  const bool ignored = before.sa_handler == SIG_IGN;
  if (!default_now && !ignored && before.sa_handler != SIG_DFL) return before.sa_handler(SIGBUS);
  if (ignored && sent) return;  // a fault cannot be ignored
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  sigaction(SIGBUS, &standard, nullptr);
  if (sent) raise(SIGBUS);  // a read comes again by itself
}

void on_bus_error(int, siginfo_t* info, void* context) {
  const int error = errno;               // belongs to the code that is interrupted
  const bool sent = info->si_code <= 0;  // by a process, not by a read
  if (sent || !replace_lost_pages(reinterpret_cast<std::uintptr_t>(info->si_addr))) {
    hand_on(info, context, sent);
  }
  errno = error;
}

// Anew where the standard action is found in its place: a library that had the signal before us has
// put back what it had found. Another handler is left where it is: it may hand on to ours, and ours
// above it would hand back.
void ensure_handler() {
  struct sigaction found {};
  sigaction(SIGBUS, nullptr, &found);
  const bool installed_before = page_bytes != 0;
  if (installed_before && found.sa_handler != SIG_DFL && found.sa_handler != SIG_IGN) return;
  page_bytes = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  action_before = found;
  before_spent = false;
  // The handler before finds what it asked for: signals blocked, calls restarted.
  struct sigaction action = found;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | (found.sa_flags & (SA_NODEFER | SA_RESTART));
  action.sa_sigaction = on_bus_error;
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace

GuardedRange::GuardedRange(std::span<const std::byte> bytes) {
  const std::lock_guard lock(slots_mutex);
  ensure_handler();
  for (slot_ = 0; slot_ < slots.size() && slots[slot_].bounds.range().end != 0;) ++slot_;
  if (slot_ == slots.size()) {
    throw Error({.exit = Exit::kModel,
                 .code = "too_many_files",
                 .message = std::to_string(slots.size()) + " model files are open already",
                 .hint = "close one of them"});
  }
  Slot& slot = slots[slot_];
  slot.lost = 0;
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data());
  slot.bounds.set({begin, begin + bytes.size()});
}

GuardedRange::~GuardedRange() {
  const std::lock_guard lock(slots_mutex);
  slots[slot_].bounds.set({});
}

std::optional<std::size_t> GuardedRange::lost() const {
  const Slot& slot = slots[slot_];
  const std::uintptr_t page = slot.lost;
  return page == 0 ? std::nullopt : std::optional<std::size_t>(page - slot.bounds.range().begin);
}

}  // namespace qwen
