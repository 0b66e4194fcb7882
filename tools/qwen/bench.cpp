// qwen bench: the speed of prompt and decode, beside what this machine's memory allows.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <limits>

#include "core/error.h"
#include "tools/qwen/bandwidth.h"
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

// Left to right: a text column, then numbers.
std::string cells(const std::vector<std::string>& values) {
  std::string line;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::string& v = values[i];
    const std::size_t width = i == 0 ? 16 : 14;
    const std::string gap(width > v.size() ? width - v.size() : 1, ' ');
    line += i == 0 ? v + gap : gap + v;
  }
  return line + "\n";
}

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
    output_.declare(parser);
  }

  void run(Console& console) override {
    output_.apply(console);
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
    Report report{.model = model.description(), .device = engine.description()};
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
    if (!output_.json) console.write(header(report));
    for (const std::int64_t n : prompts_.value) {
      report.rows.push_back(prefill(*session, n));
      if (!output_.json) console.write(line(report.rows.back()));
    }
    for (const std::int64_t batch : batches_.value) {
      for (const std::int64_t depth : depths_.value) {
        report.rows.push_back(decode(*session, {batch, depth}, report));
        if (!output_.json) console.write(line(report.rows.back()));
      }
    }
    if (output_.json) {
      console.document(document(report));
    } else {
      console.write("peak memory " + bytes_text(peak(report)) + "\n");
    }
  }

 private:
  struct Row {
    bool is_prefill = true;
    std::int64_t n = 0;      // tokens of the run, of each sequence
    std::int64_t depth = 0;  // cached before it
    std::int64_t batch = 1;  // sequences
    double per_second = 0;   // tokens of all sequences
    double limit = 0;        // tokens per second that reading alone would allow; 0: not known
    std::vector<Profile::Row> ops = {};
  };
  struct Report {
    Json model;
    Json device;
    std::uint64_t loading_peak = 0;  // bytes
    double bandwidth = 0;            // bytes per second
    std::int64_t weight_bytes = 0;
    std::int64_t kv_bytes_per_position = 0;
    std::vector<Row> rows = {};
  };

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

  static void count_bytes(Session& session, Report& report) {
    StepBytes counter;
    {
      const ObservingScope observing(session.backend(), &counter);
      const TokenInput token{0, 0, 0, true};
      session.step({&token, 1});
    }
    report.weight_bytes = counter.weights();
    report.kv_bytes_per_position = counter.kv_per_position();
  }

  Row prefill(Session& session, std::int64_t n) const {
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
    Row row{.is_prefill = true, .n = n, .per_second = median(rates)};
    if (profile_) row.ops = profiled(session, (n + 1) / 2, once);
    return row;
  }

  Row decode(Session& session, const Start& at, const Report& report) const {
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
    Row row{.is_prefill = false,
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

  static std::uint64_t peak(const Report& report) {
    return std::max(report.loading_peak, peak_memory());
  }

  static std::string header(const Report& report) {
    std::string text = report.model["file"].get<std::string>() + "  " +
                       report.model["file_type"].get<std::string>() + "\n" +
                       report.device["kind"].get<std::string>() + "  " +
                       report.device["name"].get<std::string>() + "  " +
                       std::to_string(report.device["threads"].get<int>()) + " threads\n";
    text += "a token reads " + thousands(report.weight_bytes) + " bytes of weights and " +
            thousands(report.kv_bytes_per_position) + " per cached token\n";
    if (report.bandwidth > 0) {
      text += "memory reads at " + fixed(report.bandwidth / 1e9, 1) + " GB/s" +
              (report.device["kind"] == "cuda" ? ", measured by a matrix-vector product" : "") +
              "\n";
    }
    return text + cells({"", "tokens", "depth", "batch", "tok/s", "limit tok/s", "share"});
  }

  static std::string line(const Row& row) {
    std::vector<std::string> values = {row.is_prefill ? "prompt" : "decode", thousands(row.n),
                                       thousands(row.depth), thousands(row.batch),
                                       rate(row.per_second)};
    if (row.limit > 0) {
      values.push_back(rate(row.limit));
      values.push_back(fixed(100 * row.per_second / row.limit, 0) + " %");
    }
    std::string text = cells(values);
    if (row.ops.empty()) return text;
    double total = 0;
    for (const Profile::Row& op : row.ops) total += op.seconds;
    text += cells({"  op", "tap", "calls", "us", "GB/s", "share"});
    for (const Profile::Row& op : row.ops) {
      text += cells({"  " + op.op, op.tap, thousands(op.calls), fixed(op.seconds * 1e6, 0),
                     fixed(static_cast<double>(op.bytes) / op.seconds / 1e9, 1),
                     fixed(100 * op.seconds / total, 1) + " %"});
    }
    return text;
  }

  static Json document(const Report& report) {
    Json prefill = Json::array();
    Json decode = Json::array();
    for (const Row& row : report.rows) {
      Json out{{"tokens", row.n}};
      if (!row.is_prefill) {
        out["depth"] = row.depth;
        out["batch"] = row.batch;
      }
      out["tok_s"] = row.per_second;
      if (row.limit > 0) {
        out["limit_tok_s"] = row.limit;
        out["share"] = row.per_second / row.limit;
      }
      if (!row.ops.empty()) out["profile"] = ops_json(row);
      (row.is_prefill ? prefill : decode).push_back(std::move(out));
    }
    return {{"model", report.model},
            {"device", report.device},
            {"bandwidth_bytes_s", report.bandwidth > 0 ? Json(report.bandwidth) : Json(nullptr)},
            {"weight_bytes_per_token", report.weight_bytes},
            {"kv_bytes_per_position", report.kv_bytes_per_position},
            {"prefill", prefill},
            {"decode", decode},
            {"peak_memory_bytes", peak(report)}};
  }

  static Json ops_json(const Row& row) {
    Json out = Json::array();
    for (const Profile::Row& op : row.ops) {
      out.push_back({{"op", op.op},
                     {"tap", op.tap},
                     {"calls", op.calls},
                     {"seconds", op.seconds},
                     {"bytes", op.bytes}});
    }
    return out;
  }

  ModelOptions model_;
  OutputOptions output_;
  Setting<std::vector<std::int64_t>> prompts_{{512}};
  Setting<std::vector<std::int64_t>> depths_{{0, 512}};
  Setting<std::vector<std::int64_t>> batches_{{1}};
  Setting<std::int64_t> tokens_{64};
  Setting<std::int64_t> repetitions_{5};
  bool profile_ = false;
};

}  // namespace

std::unique_ptr<Command> make_bench() { return std::make_unique<Bench>(); }

}  // namespace qwen::cli
