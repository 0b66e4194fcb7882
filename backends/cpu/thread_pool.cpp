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

ThreadPool::ThreadPool(int threads) {
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
  n_chunks_.store(n_chunks, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  const std::uint32_t epoch = epoch_.load(std::memory_order_relaxed) + 1;
  claims_.store(std::uint64_t{epoch} << 32 | n_chunks, std::memory_order_release);
  epoch_.store(epoch, std::memory_order_seq_cst);
  epoch_.notify_all();
  help(epoch, 0);
  for (std::uint32_t done; (done = done_.load(std::memory_order_acquire)) != n_chunks;) {
    wait_for_change(done_, done);
  }
}

void ThreadPool::work(int thread) {
  for (std::uint32_t seen = 0;;) {
    wait_for_change(epoch_, seen);
    if (stopping_) return;
    seen = epoch_.load(std::memory_order_acquire);
    help(seen, thread);
  }
}

void ThreadPool::help(std::uint32_t epoch, int thread) {
  std::uint64_t claim = claims_.load(std::memory_order_acquire);
  while (claim >> 32 == epoch) {
    const auto left = static_cast<std::uint32_t>(claim);
    if (left == 0) return;
    const Call call = call_.load(std::memory_order_relaxed);
    const void* context = context_.load(std::memory_order_relaxed);
    const std::uint32_t chunk = n_chunks_.load(std::memory_order_relaxed) - left;
    if (!claims_.compare_exchange_weak(claim, claim - 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      continue;
    }
    call(context, chunk, thread);
    done_.fetch_add(1, std::memory_order_acq_rel);
    done_.notify_one();
    claim = claims_.load(std::memory_order_acquire);
  }
}

}  // namespace qwen::cpu
