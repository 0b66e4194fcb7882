#include "tools/qwen/interrupt.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

namespace qwen::cli {
namespace {

// A signal handler can be given nothing, so this is the one mutable state outside of objects.
std::atomic<bool> answering{false};
std::atomic<bool> stop_answer{false};
std::atomic<std::int64_t> last_interrupt_ms{0};
static_assert(std::atomic<std::int64_t>::is_always_lock_free);

std::int64_t now_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);  // async-signal-safe
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

void on_interrupt(int) {
  const std::int64_t now = now_ms();
  const std::int64_t last = last_interrupt_ms.exchange(now);
  if (!answering || (stop_answer && now - last < 1000)) _exit(130);
  stop_answer = true;
}

void on_terminate(int) { _exit(143); }

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_flags = SA_RESTART;
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
  action.sa_handler = on_terminate;
  sigaction(SIGTERM, &action, nullptr);
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);
}

bool interrupted() { return stop_answer; }

AnswerScope::AnswerScope() { answering = true; }

AnswerScope::~AnswerScope() { answering = false; }

}  // namespace qwen::cli
