// Threads that share the chunks of one job after the other.
//
// Not OpenMP: its parallel regions end in a barrier that every thread has to reach, so one that
// lost its core to another process holds up all others for a time slice, whether it had work or not
// (measured with GCC's libgomp beside a compiler run: a hundred times slower). Here chunks are
// claimed, and a job ends when its chunks are done. Each thread has a share of them, which it takes
// from the front, so that it reads memory in order; one that has done its own takes others' from
// the back: a thread without a core holds up the chunk that it is in and no other. For that chunk
// the one that waits lends it its own core.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <span>
#include <thread>
#include <vector>

#include "backends/cpu/scheduled_thread.h"

namespace qwen::cpu {

class ThreadPool {
 public:
  // `threads` >= 1, the calling thread included: threads - 1 are started. Throws Error
  // (Exit::kOutOfMemory) if the system gives fewer.
  explicit ThreadPool(int threads);
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  int threads() const { return static_cast<int>(members_.size()); }

  // Calls f(begin, end, thread) for chunks that cover [0, n), on any of the threads (0 is the
  // caller's), and returns when all are done. A chunk has `grain` indices, or a multiple of that if
  // there were too many; it begins at a multiple of `grain`. What a chunk computes must not
  // depend on the thread, nor on how [0, n) is cut: one call may get all of it. f must not throw.
  // One job at a time.
  template <class F>
  void chunks(std::int64_t n, std::int64_t grain, F f) {
    const auto chunks_of = [n](std::int64_t size) { return (n + size - 1) / size; };
    if (chunks_of(grain) > kMaxChunks) grain *= (chunks_of(grain) + kMaxChunks - 1) / kMaxChunks;
    const std::int64_t n_chunks = chunks_of(grain);
    if (n_chunks <= 1 || workers_.empty()) {
      if (n > 0) f(std::int64_t{0}, n, 0);
      return;
    }
    struct Context {
      F& f;
      std::int64_t n, grain;
    } context{f, n, grain};
    run(static_cast<std::uint32_t>(n_chunks), &context,
        [](const void* p, std::uint32_t chunk, int thread) {
          const auto& c = *static_cast<const Context*>(p);
          const std::int64_t begin = chunk * c.grain;
          c.f(begin, begin + c.grain < c.n ? begin + c.grain : c.n, thread);
        });
  }

  struct Range {
    std::int64_t n, grain;
    std::int64_t n_chunks() const { return (n + grain - 1) / grain; }
  };

  // The same for several ranges as one job: calls f(range, begin, end, thread), for one chunk each.
  template <class F>
  void chunks(std::span<const Range> ranges, F f) {
    std::int64_t n_chunks = 0;
    for (const Range& r : ranges) n_chunks += r.n_chunks();
    chunks(n_chunks, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
      for (std::int64_t c = begin; c < end; ++c) {
        std::size_t range = 0;
        std::int64_t before = 0;
        while (c - before >= ranges[range].n_chunks()) before += ranges[range++].n_chunks();
        const auto [n, grain] = ranges[range];
        const std::int64_t first = (c - before) * grain;
        f(range, first, std::min(first + grain, n), thread);
      }
    });
  }

 private:
  using Call = void (*)(const void* context, std::uint32_t chunk, int thread);

  // Chunks of a job that are not yet claimed, [begin, end), with the job's epoch as one word: a
  // claim fails if the job is no longer the one whose fields were read.
  struct alignas(8) Claims {
    std::uint32_t epoch;
    std::uint16_t begin, end;
  };
  static constexpr std::int64_t kMaxChunks = std::numeric_limits<std::uint16_t>::max();
  struct alignas(64) Member {
    std::atomic<Claims> claims{{0, 0, 0}};  // of its share
    std::atomic<ScheduledThread> thread{ScheduledThread()};
    std::atomic<bool> is_helping{false};
    std::atomic<bool> has_callers_core{false};
    static_assert(std::atomic<Claims>::is_always_lock_free);
    static_assert(std::atomic<ScheduledThread>::is_always_lock_free);
  };

  void run(std::uint32_t n_chunks, const void* context, Call call);
  void work(int thread);
  void stop();
  // Does chunks until none is left.
  void help(int thread);
  // Does chunks of the share of thread `owner` until none is left; returns how many.
  std::uint32_t take(int owner, int thread);
  // Returns once `value` differs from `old`.
  void wait_for_change(const std::atomic<std::uint32_t>& value, std::uint32_t old, int thread);
  // To one that is in a chunk and does not run.
  void lend_core(int thread);

  // The current job. Its fields change only while no chunk is left to claim, so whoever succeeds in
  // claiming a chunk has read the fields of the job that the chunk belongs to.
  std::atomic<Call> call_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::vector<Member> members_;  // by thread

  alignas(64) std::atomic<std::uint32_t> done_{0};   // finished chunks of the current job
  alignas(64) std::atomic<std::uint32_t> epoch_{0};  // what sleeping threads wait on
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

}  // namespace qwen::cpu
