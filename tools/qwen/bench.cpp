// qwen bench: the speed of prompt and decode, beside what this machine's memory allows.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <limits>
#include <optional>

#include "core/error.h"
#include "tools/qwen/bandwidth.h"
#include "tools/qwen/bench_report.h"
#include "tools/qwen/command.h"
#include "tools/qwen/engine.h"
#include "tools/qwen/format.h"
#include "tools/qwen/memory.h"
#include "tools/qwen/profile.h"
#include "tools/qwen/stream.h"

namespace qwen::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kMaxBatch = 4096;
constexpr std::int64_t kMaxLength = std::numeric_limits<std::int32_t>::max() / 4;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

std::uint64_t peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) << 10;
}

// Starts the peak anew (proc(5), clear_refs). Where the system does not allow it, it stays.
void restart_peak_memory() { std::ofstream("/proc/self/clear_refs") << "5"; }

class Bench : public Command {
 public:
  std::string name() const override { return "bench"; }
  std::string summary() const override {
    return "prompt and decode speed, beside this machine's limit";
  }

  void declare(Parser& parser) override {
    parser.words({"MODEL"}, model_.words, "Medians of several runs, with tokens of no meaning.");
    model_.declare(parser);
    parser.integers("-p,--prompt-lengths", prompts_, {1, kMaxLength},
                    "prompt lengths to measure; default 512");
    parser.integers("-d,--depths", depths_, {0, kMaxLength},
                    "cached tokens before the decode that is measured; default 0,512");
    parser.integers("-b,--batch", batches_, {1, kMaxBatch},
                    "sequences that are decoded together, each at the depth; default 1");
    parser.integer("-n,--tokens", tokens_, {1, kMaxLength},
                   "tokens of a decode run, of each sequence; default 64");
    parser.integer("-r,--repetitions", repetitions_, {1, 1000}, "runs of each kind; default 5");
    parser.flag("--profile", profile_, "time by op, of one more run of each kind");
    parser.text_option("--compare", compare_,
                       "an earlier run's --json: each of its rows stands below the one that "
                       "measures the same");
    output_.declare(parser);
  }

  void run(Console& console) override {
    output_.apply(console);
    std::optional<EarlierBench> earlier;  // read before the minutes that the runs may take
    if (compare_.chosen()) earlier.emplace(compare_.value);
    const EarlierBench* const before = earlier ? &*earlier : nullptr;
    OpenedModel model(model_.take_model(console), console);
    Engine engine(model, model_, console);
    const std::int64_t needed = context_needed();
    const std::int64_t n_seqs = most(batches_);
    const StepLimits limits{.tokens = std::max(engine.backend().step_tokens(), n_seqs),
                            .rows = n_seqs,
                            .n_seqs = n_seqs};
    const std::int64_t ctx = engine.choose_context(limits, needed);
    if (needed > ctx) {
      throw Error({.exit = Exit::kContext,
                   .code = "context_full",
                   .message = "the runs need " + thousands(needed) + " tokens, the context is " +
                              thousands(ctx),
                   .hint = "smaller -p, -d or -n"});
    }
    BenchReport report{.model = model.description(), .device = engine.description()};
    // The buffer that the memory is measured with is not the model's need.
    report.loading_peak = peak_memory();
    // A quarter: it must not push the model out of memory.
    const auto at_most = static_cast<std::size_t>(free_memory(engine.device()) / 4);
    try {
      report.bandwidth = engine.device().kind == "cuda"
                             ? measure_stream_limit(engine.backend(), at_most)
                             : measure_read_bandwidth(engine.threads(), at_most);
    } catch (const Error& error) {
      if (error.info().exit != Exit::kOutOfMemory) throw;  // the limit stays unknown
    }
    restart_peak_memory();
    const auto session = engine.make_session(ctx, limits);
    count_bytes(*session, report);
    const auto add = [&](BenchRow row) {
      if (!output_.json) console.write(bench_line(report, row, before));
      report.rows.push_back(std::move(row));
    };
    if (!output_.json) console.write(bench_header(report, before));
    for (const std::int64_t n : prompts_.value) add(prefill(*session, n));
    for (const std::int64_t batch : batches_.value) {
      for (const std::int64_t depth : depths_.value) {
        add(decode(*session, {batch, depth}, report));
      }
    }
    report.peak = std::max(report.loading_peak, peak_memory());
    if (output_.json) {
      console.document(bench_document(report, before));
    } else {
      console.write("peak memory " + bytes_text(report.peak) + "\n");
    }
  }

 private:
  // What a decode run starts from.
  struct Start {
    std::int64_t batch;
    std::int64_t depth;
  };

  static std::int64_t most(const Setting<std::vector<std::int64_t>>& numbers) {
    return *std::max_element(numbers.value.begin(), numbers.value.end());
  }

  std::int64_t context_needed() const {
    return std::max(most(prompts_), most(depths_) + tokens_.value + 1);
  }

  // Ids that are ordinary tokens in every vocabulary, and not all the same.
  static std::vector<std::int32_t> some_ids(std::int64_t n, const Session& session) {
    const std::int64_t below = std::min<std::int64_t>(256, session.model().shape().n_vocab);
    std::vector<std::int32_t> ids(n);
    for (std::int64_t i = 0; i < n; ++i) ids[i] = static_cast<std::int32_t>(i * 37 % below);
    return ids;
  }

  // The time of `n` tokens of each sequence, as generate() makes them: as many steps queued ahead
  // as suits the backend. One more is made before the clock starts.
  static double decode_seconds(Session& session, const Start& at, std::int64_t n) {
    std::vector<TokenInput> tokens;
    for (std::int32_t seq = 0; seq < at.batch; ++seq) {
      tokens.push_back({seq % 7, static_cast<std::int32_t>(at.depth), seq, true});
    }
    session.step(tokens);
    session.sample();
    const Clock::time_point start = Clock::now();
    std::int64_t n_left = n;
    for (std::int64_t i = 0; i < n; ++i) {
      while (n_left > 0 && session.n_queued() <= session.backend().queue_depth()) {
        session.queue_decode();
        --n_left;
      }
      session.take();
    }
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  static void count_bytes(Session& session, BenchReport& report) {
    StepBytes counter;
    {
      const ObservingScope observing(session.backend(), &counter);
      const TokenInput token{0, 0, 0, true};
      session.step({&token, 1});
    }
    report.weight_bytes = counter.weights();
    report.kv_bytes_per_position = counter.kv_per_position();
  }

  BenchRow prefill(Session& session, std::int64_t n) const {
    const std::vector<std::int32_t> ids = some_ids(n, session);
    std::vector<double> rates;
    const auto once = [&] {
      session.reset(0);
      const Clock::time_point start = Clock::now();
      session.prefill(0, ids);
      session.sample();  // waits for the logits
      return std::chrono::duration<double>(Clock::now() - start).count();
    };
    once();  // pages and caches are warm afterwards
    for (std::int64_t i = 0; i < repetitions_.value; ++i) {
      rates.push_back(static_cast<double>(n) / once());
    }
    BenchRow row{.is_prefill = true, .n = n, .per_second = median(rates)};
    if (profile_) row.ops = profiled(session, (n + 1) / 2, once);
    return row;
  }

  BenchRow decode(Session& session, const Start& at, const BenchReport& report) const {
    for (std::int32_t seq = 0; seq < at.batch; ++seq) {
      session.reset(seq);
      if (at.depth > 0) session.prefill(seq, some_ids(at.depth, session));
    }
    const std::int64_t n = tokens_.value;
    const auto once = [&] { return decode_seconds(session, at, n); };
    decode_seconds(session, at, std::min<std::int64_t>(n, 4));  // warm
    std::vector<double> rates;
    for (std::int64_t i = 0; i < repetitions_.value; ++i) {
      rates.push_back(static_cast<double>(at.batch * n) / once());
    }
    // Token i of the run attends to depth + i + 2 positions: one was made before the clock started.
    const std::int64_t positions = at.depth + 1 + (n + 1) / 2;
    // The weights are read once for all sequences.
    const std::int64_t bytes =
        report.weight_bytes + at.batch * report.kv_bytes_per_position * positions;
    BenchRow row{
        .is_prefill = false,
        .n = n,
        .depth = at.depth,
        .batch = at.batch,
        .per_second = median(rates),
        .limit = report.bandwidth * static_cast<double>(at.batch) / static_cast<double>(bytes)};
    if (profile_) row.ops = profiled(session, positions, once);
    return row;
  }

  template <class F>
  static std::vector<Profile::Row> profiled(Session& session, std::int64_t kv_len, const F& once) {
    Profile profile(session.backend(), kv_len);
    const ObservingScope observing(session.backend(), &profile);
    once();
    return profile.rows();
  }

  ModelOptions model_;
  OutputOptions output_;
  Setting<std::vector<std::int64_t>> prompts_{{512}};
  Setting<std::vector<std::int64_t>> depths_{{0, 512}};
  Setting<std::vector<std::int64_t>> batches_{{1}};
  Setting<std::int64_t> tokens_{64};
  Setting<std::int64_t> repetitions_{5};
  Setting<std::string> compare_;
  bool profile_ = false;
};

}  // namespace

std::unique_ptr<Command> make_bench() { return std::make_unique<Bench>(); }

}  // namespace qwen::cli
