#include "loader/guarded_range.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "core/error.h"

namespace qwen {
namespace {

// A signal handler can be given nothing, so the ranges are global. A slot is free while `end` is 0.
struct Slot {
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};
  std::atomic<bool> lost{false};
};
static_assert(std::atomic<std::uintptr_t>::is_always_lock_free);

std::array<Slot, 64> slots;
std::mutex slots_mutex;
struct sigaction action_before;
std::uintptr_t page_bytes = 0;  // of the system; set with the handler

// Puts zeros in the place of the page at `address` and all that follow. True if it is ours.
bool replace_lost_pages(std::uintptr_t address) {
  for (Slot& slot : slots) {
    const std::uintptr_t end = slot.end;
    if (address < slot.begin || address >= end) continue;
    const std::uintptr_t page = address / page_bytes * page_bytes;
    slot.lost = true;
    return mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
  }
  return false;
}

void on_bus_error(int, siginfo_t* info, void*) {
  const bool sent = info->si_code <= 0;  // by a process, not by a read
  if (!sent && replace_lost_pages(reinterpret_cast<std::uintptr_t>(info->si_addr))) return;
  sigaction(SIGBUS, &action_before, nullptr);
  if (sent) raise(SIGBUS);  // a read comes again by itself
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    page_bytes = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = on_bus_error;
    sigaction(SIGBUS, &action, &action_before);
  });
}

}  // namespace

GuardedRange::GuardedRange(std::span<const std::byte> bytes) {
  install_handler();
  const std::lock_guard lock(slots_mutex);
  for (slot_ = 0; slot_ < slots.size() && slots[slot_].end != 0;) ++slot_;
  if (slot_ == slots.size()) {
    throw Error({.exit = Exit::kModel,
                 .code = "too_many_files",
                 .message = std::to_string(slots.size()) + " model files are open already",
                 .hint = "close one of them"});
  }
  Slot& slot = slots[slot_];
  slot.lost = false;
  slot.begin = reinterpret_cast<std::uintptr_t>(bytes.data());
  slot.end = slot.begin + bytes.size();
}

GuardedRange::~GuardedRange() { slots[slot_].end = 0; }

bool GuardedRange::lost() const { return slots[slot_].lost; }

}  // namespace qwen
