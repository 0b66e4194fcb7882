#include "tools/qwen/bandwidth.h"

#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <vector>

namespace qwen::cli {
namespace {

// 64 bytes, a cache line: the compiler splits it into the widest registers that the build allows.
using Words = std::uint64_t __attribute__((vector_size(64)));

constexpr std::size_t kMinBytes = std::size_t{256} << 20;
constexpr std::size_t kMaxBytes = std::size_t{1} << 30;  // more only takes longer to fill
constexpr std::size_t kCacheMultiple =
    8;  // of the last-level cache: at most an eighth of a pass hits it
constexpr int kPasses = 8;

// Of the last-level cache that the first processor uses; 0 if the system does not say. (sysconf
// gives the processor's whole cache, of which a virtual machine may have a slice.)
std::size_t last_level_cache_bytes() {
  std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index3/size");
  std::size_t kib = 0;
  return file >> kib ? kib << 10 : 0;  // "32768K"
}

// Pages of the kernel's choice, freed at the end.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : bytes_(bytes) {
    memory_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    // Small pages cost 4 % of the bandwidth in translation misses (measured on two cores of a Zen
    // 4).
    if (valid()) madvise(memory_, bytes, MADV_HUGEPAGE);
  }
  ~Buffer() {
    if (valid()) munmap(memory_, bytes_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  bool valid() const { return memory_ != MAP_FAILED; }
  Words* words() const { return static_cast<Words*>(memory_); }

 private:
  std::size_t bytes_;
  void* memory_;
};

std::uint64_t sum(const Words* begin, const Words* end) {
  // Four sums, so that no addition waits for the one before it.
  Words a{}, b{}, c{}, d{};
  for (; begin + 4 <= end; begin += 4) {
    a += begin[0];
    b += begin[1];
    c += begin[2];
    d += begin[3];
  }
  const Words all = a + b + c + d;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < 8; ++i) total += all[i];
  return total;
}

}  // namespace

double measure_read_bandwidth(int threads, std::size_t max_bytes) {
  std::size_t bytes = std::clamp(last_level_cache_bytes() * kCacheMultiple, kMinBytes, kMaxBytes);
  // Whole slices of the loop above for every thread.
  const std::size_t unit = static_cast<std::size_t>(threads) * 4 * sizeof(Words);
  bytes = std::min(bytes, max_bytes) / unit * unit;
  if (bytes == 0) return 0;
  const Buffer buffer(bytes);
  if (!buffer.valid()) return 0;
  const std::size_t per_thread = bytes / sizeof(Words) / static_cast<std::size_t>(threads);

  std::vector<double> starts(threads), ends(threads);
  std::vector<std::uint64_t> sums(threads);
  double best = 0;
  bool complete = true;
#pragma omp parallel num_threads(threads)
  {
    const int t = omp_get_thread_num();
    Words* begin = buffer.words() + static_cast<std::size_t>(t) * per_thread;
    // Written by the thread that reads it: the pages lie near it.
    std::fill(begin, begin + per_thread, Words{} + 1);
    for (int pass = 0; pass < kPasses; ++pass) {
#pragma omp barrier
      // Taken by the threads themselves: waking them up is no part of the reading.
      starts[t] = omp_get_wtime();
      sums[t] += sum(begin, begin + per_thread);
      ends[t] = omp_get_wtime();
#pragma omp barrier
#pragma omp single
      {
        const double seconds = *std::max_element(ends.begin(), ends.end()) -
                               *std::min_element(starts.begin(), starts.end());
        best = std::max(best, static_cast<double>(bytes) / seconds);
        complete = complete && omp_get_num_threads() == threads;
      }
    }
  }
  // The sums are used, so that the reads cannot be left out; and they tell that all was read.
  const std::uint64_t expected = per_thread * 8 * kPasses;
  complete = complete &&
             std::all_of(sums.begin(), sums.end(), [&](std::uint64_t s) { return s == expected; });
  return complete ? best : 0;
}

}  // namespace qwen::cli
