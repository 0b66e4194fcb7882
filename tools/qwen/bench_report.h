// What qwen bench has measured, for people and as JSON, and an earlier run beside it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/qwen/console.h"
#include "tools/qwen/profile.h"

namespace qwen::cli {

struct BenchRow {
  bool is_prefill = true;
  std::int64_t n = 0;      // tokens of the run, of each sequence
  std::int64_t depth = 0;  // cached before it
  std::int64_t batch = 1;  // sequences
  double per_second = 0;   // tokens of all sequences
  double limit = 0;        // tokens per second that reading alone would allow; 0: not known
  std::vector<Profile::Row> ops = {};

  double share() const { return limit > 0 ? per_second / limit : 0; }
};

struct BenchReport {
  Json model;
  Json device;
  std::uint64_t loading_peak = 0;  // bytes
  std::uint64_t peak = 0;          // bytes, of all
  double bandwidth = 0;            // bytes per second; 0: not known
  std::int64_t weight_bytes = 0;   // that a token reads
  std::int64_t kv_bytes_per_position = 0;
  std::vector<BenchRow> rows = {};
};

// What `qwen bench --json` wrote once.
class EarlierBench {
 public:
  // From a file, or standard input for "-". Throws Error (Exit::kUsage) if it holds something else.
  explicit EarlierBench(const std::string& path);

  // The row that measured the same: lengths, depth and batch.
  std::optional<BenchRow> find(const BenchRow& row) const;
  // "q8_0.gguf  Q8_0  on  cpu  AMD EPYC  2 threads, memory reads at 60.1 GB/s"
  std::string text() const;
  // What identifies it in a later document.
  Json json() const;

 private:
  std::string path_;
  BenchReport report_;
};

// Above the rows. `before` may be null, here and below.
std::string bench_header(const BenchReport& report, const EarlierBench* before);
std::string bench_line(const BenchReport& report, const BenchRow& row, const EarlierBench* before);
Json bench_document(const BenchReport& report, const EarlierBench* before);

}  // namespace qwen::cli
