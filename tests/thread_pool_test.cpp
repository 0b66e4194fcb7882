// cpu::ThreadPool: every chunk of a job is done once, whoever takes it.
#include "backends/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace qwen::cpu {
namespace {

using Counts = std::vector<std::atomic<int>>;

void expect_each_once(const Counts& counts) {
  for (std::size_t i = 0; i < counts.size(); ++i) ASSERT_EQ(counts[i], 1) << "index " << i;
}

TEST(ThreadPool, DoesEachIndexOnce) {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (const std::int64_t n : {0, 1, 2, 7, 64, 1000}) {
      for (const std::int64_t grain : {1, 3, 64, 5000}) {
        Counts counts(n);
        pool.chunks(n, grain, [&](std::int64_t begin, std::int64_t end, int thread) {
          EXPECT_EQ(begin % grain, 0);
          EXPECT_TRUE(end % grain == 0 || end == n);
          EXPECT_TRUE(thread >= 0 && thread < threads);
          for (std::int64_t i = begin; i < end; ++i) ++counts[i];
        });
        expect_each_once(counts);
      }
    }
  }
}

// More than are counted: chunks become larger, and still begin where one of those asked for does.
TEST(ThreadPool, DoesManyChunks) {
  ThreadPool pool(3);
  for (const std::int64_t grain : {1, 16}) {
    Counts counts(66'001 * grain);
    pool.chunks(static_cast<std::int64_t>(counts.size()), grain,
                [&](std::int64_t begin, std::int64_t end, int) {
                  EXPECT_EQ(begin % grain, 0);
                  for (std::int64_t i = begin; i < end; ++i) ++counts[i];
                });
    expect_each_once(counts);
  }
}

TEST(ThreadPool, CutsRangesAsAsked) {
  ThreadPool pool(2);
  const std::vector<ThreadPool::Range> ranges = {{10, 4}, {0, 3}, {70'000, 1}, {5, 5}};
  std::vector<Counts> counts;
  for (const auto& range : ranges) counts.emplace_back(range.n);
  pool.chunks(ranges, [&](std::size_t r, std::int64_t begin, std::int64_t end, int) {
    const auto [n, grain] = ranges[r];
    EXPECT_EQ(begin % grain, 0);
    EXPECT_EQ(end, std::min(begin + grain, n));
    for (std::int64_t i = begin; i < end; ++i) ++counts[r][i];
  });
  for (const Counts& c : counts) expect_each_once(c);
}

// A job's function and range are its own, however soon the next one follows.
TEST(ThreadPool, KeepsJobsApart) {
  ThreadPool pool(4);
  for (std::int64_t job = 0; job < 20'000; ++job) {
    std::atomic<std::int64_t> sum = 0;
    const std::int64_t n = 2 + job % 9;
    pool.chunks(n, 1, [&sum, job](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) sum += job + i;
    });
    ASSERT_EQ(sum, n * job + n * (n - 1) / 2) << "job " << job;
  }
}

// The thread that is held up in its first chunk waits there until all others' and its own other
// chunks are done. The other one begins when it is there.
TEST(ThreadPool, AThreadThatIsHeldUpLosesItsShare) {
  constexpr std::int64_t kChunks = 100;
  for (const int held_up : {0, 1}) {
    ThreadPool pool(2);
    std::atomic<std::int64_t> done = 0;
    std::atomic<bool> is_held_up = false;
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    const auto wait_for = [limit](auto condition) {
      while (!condition() && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
      EXPECT_TRUE(condition());
    };
    pool.chunks(kChunks, 1, [&](std::int64_t, std::int64_t, int thread) {
      if (thread != held_up) {
        wait_for([&] { return is_held_up.load(); });
      } else if (!is_held_up.exchange(true)) {
        wait_for([&] { return done == kChunks - 1; });
      }
      ++done;
    });
    EXPECT_EQ(done, kChunks);
  }
}

}  // namespace
}  // namespace qwen::cpu
