#include "tools/qwen/progress.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "tools/qwen/format.h"

namespace qwen::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kSliceBytes = std::size_t{8} << 20;
constexpr std::chrono::milliseconds kBarInterval{100};
constexpr int kBarCells = 20;

// The share of a mapping that is in memory.
double resident_share(std::span<const std::byte> bytes, std::size_t page) {
  std::vector<unsigned char> pages((bytes.size() + page - 1) / page);
  if (mincore(const_cast<std::byte*>(bytes.data()), bytes.size(), pages.data()) != 0) return 0;
  const auto n = std::count_if(pages.begin(), pages.end(), [](auto p) { return (p & 1) != 0; });
  return static_cast<double>(n) / static_cast<double>(pages.size());
}

std::string bar_line(std::size_t done, std::size_t total) {
  const auto full = static_cast<int>(done * kBarCells / total);
  std::string line = "loading  ";
  for (int i = 0; i < kBarCells; ++i) line += i < full ? "█" : "░";
  return line + "  " + bytes_text(done);
}

// Reads one byte of each page: the page is there afterwards.
void touch(std::span<const std::byte> bytes, std::size_t page) {
  for (std::size_t at = 0; at < bytes.size(); at += page) {
    *static_cast<const volatile std::byte*>(&bytes[at]);
  }
}

}  // namespace

void show_loading(const Gguf& gguf, Console& console) {
  const Source& source = *gguf.source();
  source.prefetch();
  if (!console.terminal() || console.quiet()) return;
  const auto bytes = source.bytes();
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  // The rest of a nearly resident file arrives faster than a bar is read.
  if (resident_share(bytes, page) > 0.99) return;
  const Clock::time_point start = Clock::now();
  Clock::time_point shown = start;
  for (std::size_t at = 0; at < bytes.size(); at += kSliceBytes) {
    touch(bytes.subspan(at, std::min(kSliceBytes, bytes.size() - at)), page);
    const Clock::time_point now = Clock::now();
    if (now - shown < kBarInterval) continue;
    shown = now;
    console.bar(bar_line(at, bytes.size()));
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  console.bar(bar_line(bytes.size(), bytes.size()) + "  " + fixed(seconds, 1) + " s (" +
              bytes_text(static_cast<std::uint64_t>(static_cast<double>(bytes.size()) / seconds)) +
              "/s)\n");
}

}  // namespace qwen::cli
