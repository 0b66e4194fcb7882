#include "backends/cpu/scheduled_thread.h"

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>
#endif

namespace qwen::cpu {

#if defined(__linux__)

namespace {

std::int64_t nanoseconds_of(clockid_t clock) {
  timespec time{};
  if (clock_gettime(clock, &time) != 0) return 0;
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

ScheduledThread ScheduledThread::self() {
  static thread_local const ScheduledThread self = [] {
    ScheduledThread thread;
    clockid_t clock;
    if (pthread_getcpuclockid(pthread_self(), &clock) == 0) {
      thread.id_ = gettid();
      thread.clock_ = clock;
    }
    return thread;
  }();
  return self;
}

// The system brings the clock of a thread that runs up to date whenever it is read.
bool ScheduledThread::lacks_core() const {
  return id_ != 0 && nanoseconds_of(clock_) == nanoseconds_of(clock_);
}

void ScheduledThread::bring_here() const {
  cpu_set_t usable;
  const int core = sched_getcpu();
  if (core < 0 || sched_getaffinity(id_, sizeof usable, &usable) != 0) return;
  if (!CPU_ISSET(core, &usable)) return;
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(core, &here);
  if (sched_setaffinity(id_, sizeof here, &here) != 0) return;
  sched_setaffinity(id_, sizeof usable, &usable);
}

void ScheduledThread::leave_core() {
  constexpr int kSelf = 0;
  cpu_set_t usable;
  const int core = sched_getcpu();
  if (core < 0 || sched_getaffinity(kSelf, sizeof usable, &usable) != 0) return;
  cpu_set_t others = usable;
  CPU_CLR(core, &others);
  if (CPU_COUNT(&others) == 0) return;
  if (sched_setaffinity(kSelf, sizeof others, &others) != 0) return;
  sched_setaffinity(kSelf, sizeof usable, &usable);
}

#else

ScheduledThread ScheduledThread::self() { return {}; }
bool ScheduledThread::lacks_core() const { return false; }
void ScheduledThread::bring_here() const {}
void ScheduledThread::leave_core() {}

#endif

}  // namespace qwen::cpu
