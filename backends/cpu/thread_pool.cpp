#include "backends/cpu/thread_pool.h"

#include <string>
#include <system_error>

#include "core/error.h"

namespace qwen::cpu {
namespace {

// How long a thread looks for work before it sleeps: longer than the gap between two ops of a
// decode step (some microseconds), shorter than anything a person would call waiting. About 20 to
// 60 us.
constexpr int kSpins = 1000;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Returns once `value` differs from `old`.
void wait_for_change(std::atomic<std::uint32_t>& value, std::uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    relax();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads) : shares_(threads) {
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::system_error&) {
    stop();
    throw Error({.exit = Exit::kOutOfMemory,
                 .code = "no_threads",
                 .message = "cannot start " + std::to_string(threads) + " threads",
                 .hint = "-t with a smaller number"});
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stopping_ = true;
  epoch_.fetch_add(1);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(std::uint32_t n_chunks, const void* context, Call call) {
  call_.store(call, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  const std::uint32_t epoch = epoch_.load(std::memory_order_relaxed) + 1;
  const auto n_shares = static_cast<std::uint32_t>(shares_.size());
  for (std::uint32_t i = 0; i < n_shares; ++i) {
    const auto until = [&](std::uint32_t share) {
      // Rounded up: the caller, who is awake, never has less than others.
      return static_cast<std::uint16_t>((n_chunks * share + n_shares - 1) / n_shares);
    };
    shares_[i].claims.store({epoch, until(i), until(i + 1)}, std::memory_order_release);
  }
  epoch_.store(epoch, std::memory_order_seq_cst);
  epoch_.notify_all();
  help(0);
  for (std::uint32_t done; (done = done_.load(std::memory_order_acquire)) != n_chunks;) {
    wait_for_change(done_, done);
  }
}

void ThreadPool::work(int thread) {
  for (std::uint32_t seen = 0;;) {
    wait_for_change(epoch_, seen);
    if (stopping_) return;
    seen = epoch_.load(std::memory_order_acquire);
    help(thread);
  }
}

void ThreadPool::help(int thread) {
  const int n_shares = static_cast<int>(shares_.size());
  std::uint32_t n = 0;
  for (int i = 0; i < n_shares; ++i) n += take((thread + i) % n_shares, thread);
  if (n == 0) return;
  done_.fetch_add(n, std::memory_order_acq_rel);
  done_.notify_one();
}

std::uint32_t ThreadPool::take(int owner, int thread) {
  std::atomic<Claims>& claims = shares_[owner].claims;
  std::uint32_t n = 0;
  Claims left = claims.load(std::memory_order_acquire);
  while (left.begin != left.end) {
    const Call call = call_.load(std::memory_order_relaxed);
    const void* context = context_.load(std::memory_order_relaxed);
    Claims rest = left;
    const std::uint32_t chunk = owner == thread ? rest.begin++ : --rest.end;
    if (!claims.compare_exchange_weak(left, rest, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      continue;
    }
    call(context, chunk, thread);
    ++n;
    left = claims.load(std::memory_order_acquire);
  }
  return n;
}

}  // namespace qwen::cpu
