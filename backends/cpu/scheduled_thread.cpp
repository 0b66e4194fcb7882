#include "backends/cpu/scheduled_thread.h"

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <optional>
#endif

namespace qwen::cpu {

#if defined(__linux__)

namespace {

// Of a thread's time on a core, in ns; none if it cannot be read.
std::optional<std::int64_t> read_clock(clockid_t clock) {
  timespec time{};
  if (clock_gettime(clock, &time) != 0) return std::nullopt;
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// The cores of the thread that asked first; none if there are more than a cpu_set_t has.
const std::optional<cpu_set_t>& usable_cores() {
  static const std::optional<cpu_set_t> usable = []() -> std::optional<cpu_set_t> {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return std::nullopt;
    return set;
  }();
  return usable;
}

// Moves a thread (0: the calling one) to one of `cores`, if it may use exactly `usable`: others
// have been given cores by somebody, who knows why. Every move ends by giving it `usable`, so that
// the last of several at a time leaves it free, too. (Had each kept what it found, one could have
// found what another had narrowed, and left the thread on that core.)
void move(pid_t thread, const cpu_set_t& cores, const cpu_set_t& usable) {
  cpu_set_t now;
  if (sched_getaffinity(thread, sizeof now, &now) != 0 || !CPU_EQUAL(&now, &usable)) return;
  if (CPU_COUNT(&cores) == 0) return;
  sched_setaffinity(thread, sizeof cores, &cores);
  sched_setaffinity(thread, sizeof usable, &usable);
}

}  // namespace

ScheduledThread ScheduledThread::self() {
  static thread_local const ScheduledThread self = [] {
    ScheduledThread thread;
    clockid_t clock;
    if (usable_cores() && pthread_getcpuclockid(pthread_self(), &clock) == 0) {
      thread.id_ = gettid();
      thread.clock_ = clock;
    }
    return thread;
  }();
  return self;
}

// The system brings the clock of a thread that runs up to date whenever it is read.
bool ScheduledThread::lacks_core() const {
  if (id_ == 0) return false;
  const std::optional<std::int64_t> before = read_clock(clock_);
  return before && before == read_clock(clock_);
}

void ScheduledThread::bring_here() const {
  const int core = sched_getcpu();
  if (id_ == 0 || core < 0 || !CPU_ISSET(core, &*usable_cores())) return;
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(core, &here);
  move(id_, here, *usable_cores());
}

void ScheduledThread::leave_core() {
  const int core = sched_getcpu();
  if (core < 0 || !usable_cores()) return;
  cpu_set_t others = *usable_cores();
  CPU_CLR(core, &others);
  move(0, others, *usable_cores());
}

#else

ScheduledThread ScheduledThread::self() { return {}; }
bool ScheduledThread::lacks_core() const { return false; }
void ScheduledThread::bring_here() const {}
void ScheduledThread::leave_core() {}

#endif

}  // namespace qwen::cpu
