// How long each op takes on a device, beside what its memory allows:
//
//   bench_ops [--device cuda] [--filter TEXT] [--batch 1,8,64] [--depths 512] [--table]
//
// The shapes are those of a decode step of Qwen2.5-0.5B at each batch size; --table adds those of
// tests/op_cases. An op is timed as a compiled plan of 50 copies of it. They work on tensors of
// their own until the caches of the device cannot hold them, as a step of the model finds its
// weights; what is smaller than a fiftieth of a cache stays in it, and may be faster than memory.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>

#include "backends/host.h"
#include "backends/registry.h"
#include "core/crosscheck/placed_op.h"
#include "core/error.h"
#include "core/sampler.h"
#include "tests/op_case_parts.h"
#include "tools/qwen/bandwidth.h"
#include "tools/qwen/parser.h"
#include "tools/qwen/profile.h"
#include "tools/qwen/stream.h"

namespace qwen::cli {
namespace {

using crosscheck::PlacedOp;
using fixtures::Random;
using testing::attention_case;
using testing::Batch;
using testing::floats;
using testing::gemm_case;
using testing::GuardedMemory;
using testing::integers;
using testing::OpCase;
using testing::output;

constexpr int kNodes = 50;  // of a plan
constexpr int kRuns = 7;
// The copies of an op take this many bytes together: several times the second-level cache of the
// largest GPU (50 MiB on Hopper, 126 MiB on Blackwell).
constexpr std::int64_t kColdBytes = std::int64_t{512} << 20;
constexpr std::size_t kBandwidthBytes = std::size_t{2} << 30;

struct Options {
  Setting<std::string> device{"cuda"};
  Setting<std::string> filter;
  Setting<std::vector<std::int64_t>> batches{{1, 2, 4, 8, 16, 32, 64, 128, 256}};
  Setting<std::vector<std::int64_t>> depths{{512, 4096}};
  bool table = false;
  bool exact = false;
};

// The ops of a decode step of the 0.5B model with `n` sequences that do not depend on the depth.
void add_step_ops(std::vector<OpCase>& cases, std::int64_t n) {
  constexpr std::int64_t kDim = 896, kKv = 128, kFfn = 4864, kVocab = 151936;
  for (const DType type : {DType::kF16, DType::kQ8_0, DType::kQ4_K, DType::kQ6_K}) {
    // Rows of 896 are no multiple of a block of 256: files have Q8_0 there, or Q5_0.
    for (const auto& [rows, cols] :
         {std::pair{kDim, kDim}, {kKv, kDim}, {kFfn, kDim}, {kDim, kFfn}, {kVocab, kDim}}) {
      if (cols % info(type).block_size == 0) cases.push_back(gemm_case(type, {n, rows, cols}));
    }
  }
  const std::string suffix = "_" + std::to_string(n) + "x";
  const auto add = [&](const std::string& name, std::int64_t cols, auto make) {
    cases.push_back({name + suffix + std::to_string(cols), make});
  };
  add("RmsNorm", kDim, [=](GuardedMemory& m, Random& r) -> Op {
    return RmsNorm{output(m, {n, kDim}), floats(m, r, {n, kDim}), floats(m, r, {kDim}), 1e-6f};
  });
  add("AddBias", kDim, [=](GuardedMemory& m, Random& r) -> Op {
    return AddBias{floats(m, r, {n, kDim}), floats(m, r, {kDim})};
  });
  add("Add", kDim, [=](GuardedMemory& m, Random& r) -> Op {
    return Add{floats(m, r, {n, kDim}), floats(m, r, {n, kDim})};
  });
  add("SiluMul", kFfn, [=](GuardedMemory& m, Random& r) -> Op {
    return SiluMul{output(m, {n, kFfn}), floats(m, r, {n, kFfn}), floats(m, r, {n, kFfn})};
  });
  // Greedy, and with the family's own parameters.
  for (const bool drawn : {false, true}) {
    add(drawn ? "Sample_drawn" : "Sample", kVocab, [=](GuardedMemory& m, Random& r) -> Op {
      std::vector<std::int32_t> rows(n);
      std::iota(rows.begin(), rows.end(), 0);
      const Tensor params = m.take(DType::kI32, {n, 8});
      SampleParams row;
      if (drawn) row = {.temp = 0.7f, .top_k = 20, .top_p = 0.8f, .repeat_penalty = 1.05f};
      for (std::int64_t i = 0; i < n; ++i) params.as<SampleParams>()[i] = row;
      const Tensor seen = m.take(DType::kI8, {n, kVocab});
      std::fill_n(seen.as<std::int8_t>(), seen.size(), std::int8_t{0});
      return Sample{
          m.take(DType::kI32, {n}), output(m, {n}),    seen,  floats(m, r, {n, kVocab}, 3),
          integers(m, rows),        integers(m, rows), params};
    });
  }
}

void add_attention(std::vector<OpCase>& cases, std::int64_t n, std::int64_t depth) {
  Batch batch{"depth" + std::to_string(depth) + "x" + std::to_string(n), {}};
  for (std::int64_t s = 0; s < n; ++s) {
    batch.positions.push_back({static_cast<std::int32_t>(depth)});
  }
  cases.push_back(attention_case(batch, {14, 2, 64}, DType::kF16, false));
}

std::vector<OpCase> chosen_cases(const Options& options) {
  std::vector<OpCase> cases;
  for (const std::int64_t n : options.batches.value) {
    add_step_ops(cases, n);
    for (const std::int64_t depth : options.depths.value) add_attention(cases, n, depth);
  }
  if (options.table) {
    for (const OpCase& c : testing::op_cases()) cases.push_back(c);
  }
  std::erase_if(cases, [&](const OpCase& c) {
    return c.name.find(options.filter.value) == std::string::npos;
  });
  return cases;
}

// Positions that a token of the op attends to, on average.
std::int64_t kv_len(const Op& host) {
  const auto* attention = std::get_if<Attention>(&host);
  if (attention == nullptr) return 0;
  const std::int32_t* pos = attention->pos.i32();
  const std::int64_t n = attention->pos.size();
  return std::accumulate(pos, pos + n, std::int64_t{0}) / n + 1;
}

// Bytes of its tensors: a rest of them may stay in a cache from one run to the next.
std::int64_t footprint(const Op& op) {
  Op copy = op;
  std::int64_t total = 0;
  for (const Operand& o : operands(copy)) total += static_cast<std::int64_t>(o.tensor->bytes());
  return total;
}

std::unique_ptr<Backend> open_backend(const Options& options) {
  return make_backend(options.device.value, {.exact = options.exact});
}

double seconds_per_op(Backend& backend, const Op& host) {
  const auto n_copies =
      static_cast<std::size_t>(std::clamp<std::int64_t>(kColdBytes / footprint(host), 1, kNodes));
  std::vector<PlacedOp> placed;
  for (std::size_t i = 0; i < n_copies; ++i) placed.emplace_back(backend, host);
  Plan plan;
  for (std::size_t i = 0; i < kNodes; ++i) plan.push_back({placed[i % n_copies].op(), {}});
  backend.reserve(plan);
  const Op last = plan.back().op;
  const auto program = backend.compile(std::move(plan));
  std::vector<double> seconds;
  for (int run = 0; run <= kRuns; ++run) {
    wait_for(backend, last);
    const auto start = std::chrono::steady_clock::now();
    program->run();
    wait_for(backend, last);
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    if (run > 0) seconds.push_back(spent.count() / kNodes);  // the first one only warms up
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

int bench(const Options& options) {
  double limit = 0;
  {
    const auto backend = open_backend(options);
    limit = options.device.value == "cuda"
                ? measure_stream_limit(*backend, kBandwidthBytes)
                : measure_read_bandwidth(options.device.value == "ref" ? 1 : usable_cores(),
                                         kBandwidthBytes / 4);
    std::printf("%s: %s, memory reads at %.1f GB/s\n", options.device.value.c_str(),
                backend->description().c_str(), limit / 1e9);
  }
  std::printf("%-44s %10s %10s %8s %10s\n", "op", "us", "GB/s", "share", "GFLOP/s");
  for (const OpCase& c : chosen_cases(options)) {
    GuardedMemory memory;
    Random random(1);
    const Op host = c.make(memory, random);
    const auto backend = open_backend(options);  // what it placed is freed with it
    const double seconds = seconds_per_op(*backend, host);
    const std::int64_t length = kv_len(host);
    const double rate = static_cast<double>(bytes(host, length)) / seconds;
    std::printf("%-44s %10.2f %10.1f %6.1f %% %10.1f\n", c.name.c_str(), seconds * 1e6, rate / 1e9,
                limit > 0 ? 100 * rate / limit : 0.0,
                static_cast<double>(flops(host, length)) / seconds / 1e9);
    std::fflush(stdout);
  }
  return 0;
}

int run_program(const std::vector<std::string>& args) {
  Options options;
  Parser parser("bench_ops", "how long each op takes");
  parser.choice("--device", options.device, {"cuda", "cpu", "ref"}, "default: cuda");
  parser.text_option("--filter", options.filter, "only ops whose name has this in it");
  parser.integers("-b,--batch", options.batches, {1, 4096}, "sequences of a decode step");
  parser.integers("-d,--depths", options.depths, {0, 131072}, "cached tokens, for Attention");
  parser.flag("--table", options.table, "the shapes of tests/op_cases too");
  parser.flag("--exact", options.exact, "FP32 operands in every matrix product");
  if (parser.wants_help(args)) {
    std::fputs(parser.help().c_str(), stdout);
    return 0;
  }
  parser.parse(args);
  return bench(options);
}

}  // namespace
}  // namespace qwen::cli

int main(int argc, char** argv) {
  try {
    return qwen::cli::run_program({argv + 1, argv + argc});
  } catch (const qwen::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    if (!error.info().hint.empty()) std::fprintf(stderr, "hint: %s\n", error.info().hint.c_str());
    return static_cast<int>(error.info().exit);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
