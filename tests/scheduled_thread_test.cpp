// cpu::ScheduledThread: which threads lack a core, and where they run afterwards.
#include "backends/cpu/scheduled_thread.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

namespace qwen::cpu {
namespace {

using namespace std::chrono_literals;

// Looks often enough for a busy machine, and for the system to have had its turn.
bool becomes_true(const std::function<bool()>& condition) {
  for (int i = 0; i < 5000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(1ms);
  }
  return false;
}

cpu_set_t usable_cores() {
  cpu_set_t usable;
  EXPECT_EQ(sched_getaffinity(0, sizeof usable, &usable), 0);
  return usable;
}

// Moves the calling thread to the n-th core that it may use, and lets it use all.
void start_on_core(int n) {
  const cpu_set_t usable = usable_cores();
  int core = 0;
  while (!CPU_ISSET(core, &usable) || n-- > 0) ++core;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  EXPECT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(sched_setaffinity(0, sizeof usable, &usable), 0);
}

// Runs, and says where, until it is dropped.
class Runner {
 public:
  Runner()
      : thread_([this] {
          start_on_core(1);
          self_ = ScheduledThread::self();
          is_ready_ = true;
          while (!stops_) {
            core_ = sched_getcpu();
            if (sleeps_) std::this_thread::sleep_for(1ms);
          }
          const cpu_set_t usable = usable_cores();
          n_usable_ = CPU_COUNT(&usable);
        }) {
    while (!is_ready_) std::this_thread::yield();
  }
  ~Runner() { stop(); }
  void stop() {
    stops_ = true;
    if (thread_.joinable()) thread_.join();
  }
  void sleep() { sleeps_ = true; }
  ScheduledThread thread() const { return self_; }
  int core() const { return core_; }
  int n_usable() const { return n_usable_; }  // once it has stopped

 private:
  std::atomic<bool> is_ready_ = false, sleeps_ = false, stops_ = false;
  std::atomic<int> core_ = -1;
  int n_usable_ = 0;
  ScheduledThread self_;
  std::thread thread_;
};

class ScheduledThreads : public ::testing::Test {
 protected:
  void SetUp() override {
    const cpu_set_t usable = usable_cores();
    n_usable_ = CPU_COUNT(&usable);
    if (n_usable_ < 2) GTEST_SKIP() << "one core";
  }
  int n_usable_ = 0;
};

TEST_F(ScheduledThreads, OnesThatRunLackNoCore) {
  Runner runner;
  // Looks for long at a time: just after it has slept, this thread may be what took the other's
  // core.
  EXPECT_TRUE(becomes_true([&] {
    int n = 0;
    while (n < 10'000 && runner.thread().lacks_core()) ++n;
    return n < 10'000;
  }));
  runner.sleep();
  EXPECT_TRUE(becomes_true([&] { return runner.thread().lacks_core(); }));
  EXPECT_FALSE(ScheduledThread().lacks_core());
}

TEST_F(ScheduledThreads, AreBroughtToTheCallersCore) {
  start_on_core(0);
  Runner runner;
  EXPECT_TRUE(becomes_true([&] {
    const int here = sched_getcpu();
    runner.thread().bring_here();
    std::this_thread::sleep_for(1ms);
    return runner.core() == here;
  }));
  runner.stop();
  EXPECT_EQ(runner.n_usable(), n_usable_);
}

TEST_F(ScheduledThreads, StayFreeWhenSeveralMoveThemAtATime) {
  Runner runner;
  std::atomic<bool> stops = false;
  std::vector<std::thread> movers;
  for (int i = 0; i < 4; ++i) {
    movers.emplace_back([&] {
      while (!stops) runner.thread().bring_here();
    });
  }
  std::this_thread::sleep_for(300ms);
  stops = true;
  for (std::thread& mover : movers) mover.join();
  runner.stop();
  EXPECT_EQ(runner.n_usable(), n_usable_);
}

TEST_F(ScheduledThreads, KeepTheCoresThatTheyWereGiven) {
  const ScheduledThread self = ScheduledThread::self();
  const cpu_set_t before = usable_cores();
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  std::thread([&] { self.bring_here(); }).join();
  ScheduledThread::leave_core();
  const cpu_set_t after = usable_cores();
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
  EXPECT_TRUE(CPU_EQUAL(&after, &one));
}

TEST_F(ScheduledThreads, LeaveTheirCore) {
  EXPECT_TRUE(becomes_true([] {
    const int before = sched_getcpu();
    ScheduledThread::leave_core();
    return sched_getcpu() != before;  // unless the system has moved it back
  }));
  const cpu_set_t usable = usable_cores();
  EXPECT_EQ(CPU_COUNT(&usable), n_usable_);
}

TEST_F(ScheduledThreads, ThatHaveEndedAreNotFound) {
  Runner runner;
  runner.stop();
  runner.thread().bring_here();
  const cpu_set_t usable = usable_cores();
  EXPECT_EQ(CPU_COUNT(&usable), n_usable_);
}

}  // namespace
}  // namespace qwen::cpu
