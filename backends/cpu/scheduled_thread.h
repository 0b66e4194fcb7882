// A thread as the system's scheduler knows it, to lend it a core. Linux only: elsewhere no thread
// is ever found to lack one.
#pragma once

#include <cstdint>

namespace qwen::cpu {

// One that has ended may be asked for: it is no longer found.
class ScheduledThread {
 public:
  ScheduledThread() = default;  // none
  static ScheduledThread self();

  // Whether it does not run at this moment, for want of a core or because it waits.
  bool lacks_core() const;
  // Moves it to the calling thread's core, where it runs once that thread sleeps. It may go on
  // using all the cores that it could use before. Threads that may not use the same cores as the
  // first one that asked for self() are left alone.
  void bring_here() const;
  // Moves the calling thread to another of the cores that it may use, if there is one.
  static void leave_core();

 private:
  std::int32_t id_ = 0;     // 0: none
  std::int32_t clock_ = 0;  // of the time that it has run
};

}  // namespace qwen::cpu
