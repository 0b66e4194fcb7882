#include "tools/qwen/bench_report.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "loader/text.h"
#include "tools/qwen/format.h"
#include "tools/qwen/input.h"
#include "tools/qwen/json_input.h"
#include "tools/qwen/parser.h"

namespace qwen::cli {
namespace {

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

std::string percent(double share, int digits) { return fixed(100 * share, digits) + " %"; }

std::string model_text(const BenchReport& report) {
  return printable(report.model.at("file").get<std::string>()) + "  " +
         printable(report.model.at("file_type").get<std::string>());
}

std::string device_text(const BenchReport& report) {
  const std::string name = report.device.at("name");
  // Reports of earlier versions have only the number of threads.
  const std::string runs_on = report.device.value(
      "runs_on", std::to_string(report.device.at("threads").get<std::int64_t>()) + " threads");
  return printable(report.device.at("kind").get<std::string>()) + "  " + printable(name) +
         (runs_on == name ? "" : "  " + printable(runs_on));
}

std::string bandwidth_text(const BenchReport& report) {
  return "memory reads at " + fixed(report.bandwidth / 1e9, 1) + " GB/s";
}

// What was measured, and the speed.
std::vector<std::string> speed_cells(std::string what, const BenchRow& row) {
  std::vector<std::string> values = {std::move(what), thousands(row.n), thousands(row.depth),
                                     thousands(row.batch), rate(row.per_second)};
  if (row.limit > 0) {
    values.push_back(rate(row.limit));
    values.push_back(percent(row.share(), 0));
  }
  return values;
}

// Each kind of op of a row: of a step's time, and how near to the memory's limit it reads.
std::string ops_text(const BenchReport& report, const BenchRow& row) {
  double total = 0;
  for (const Profile::Row& op : row.ops) total += op.seconds;
  std::string text = cells({"  op", "tap", "calls", "us", "time", "GB/s", "of limit"});
  for (const Profile::Row& op : row.ops) {
    const double speed = static_cast<double>(op.bytes) / op.seconds;
    std::vector<std::string> values = {"  " + op.op,
                                       op.tap,
                                       thousands(op.calls),
                                       fixed(op.seconds * 1e6, 0),
                                       percent(op.seconds / total, 1),
                                       fixed(speed / 1e9, 1)};
    if (report.bandwidth > 0) values.push_back(percent(speed / report.bandwidth, 0));
    text += cells(values);
  }
  return text;
}

Json ops_json(const BenchReport& report, const BenchRow& row) {
  Json out = Json::array();
  for (const Profile::Row& op : row.ops) {
    Json entry{{"op", op.op},
               {"tap", op.tap},
               {"calls", op.calls},
               {"seconds", op.seconds},
               {"bytes", op.bytes}};
    if (report.bandwidth > 0) {
      entry["share"] = static_cast<double>(op.bytes) / op.seconds / report.bandwidth;
    }
    out.push_back(std::move(entry));
  }
  return out;
}

Json speed_json(const BenchRow& row) {
  Json out{{"tok_s", row.per_second}};
  if (row.limit > 0) {
    out["limit_tok_s"] = row.limit;
    out["share"] = row.share();
  }
  return out;
}

Json row_json(const BenchReport& report, const BenchRow& row, const EarlierBench* before) {
  Json out{{"tokens", row.n}};
  if (!row.is_prefill) {
    out["depth"] = row.depth;
    out["batch"] = row.batch;
  }
  out.update(speed_json(row));
  if (!row.ops.empty()) out["profile"] = ops_json(report, row);
  if (before == nullptr) return out;
  out["before"] = nullptr;
  if (const auto then = before->find(row)) {
    out["before"] = speed_json(*then);
    out["before"]["ratio"] = row.per_second / then->per_second;
  }
  return out;
}

Json bandwidth_json(const BenchReport& report) {
  return report.bandwidth > 0 ? Json(report.bandwidth) : Json(nullptr);
}

// The rows of a document. Throws Json::exception if something is not there or of another type.
void add_rows(const Json& rows, bool is_prefill, std::vector<BenchRow>& all) {
  for (const Json& json : rows.get_ref<const Json::array_t&>()) {
    BenchRow row{.is_prefill = is_prefill,
                 .n = json.at("tokens").get<std::int64_t>(),
                 .per_second = json.at("tok_s").get<double>(),
                 .limit = json.value("limit_tok_s", 0.0)};
    if (!is_prefill) {
      row.depth = json.at("depth").get<std::int64_t>();
      row.batch = json.at("batch").get<std::int64_t>();
    }
    all.push_back(std::move(row));
  }
}

// A speed that ratios can be taken with.
bool is_speed(double per_second) { return std::isnormal(per_second) && per_second > 0; }

}  // namespace

EarlierBench::EarlierBench(const std::string& path) : path_(path) {
  const Json json = parse_json_object(read_input(path), path);
  try {
    report_.model = json.at("model");
    report_.device = json.at("device");
    const Json& bandwidth = json.at("bandwidth_bytes_s");
    if (!bandwidth.is_null()) report_.bandwidth = bandwidth.get<double>();
    add_rows(json.at("prefill"), true, report_.rows);
    add_rows(json.at("decode"), false, report_.rows);
    const bool has_names = !text().empty();  // which throws if it has not
    if (has_names && std::all_of(report_.rows.begin(), report_.rows.end(), [](const BenchRow& row) {
          return is_speed(row.per_second) && (row.limit == 0 || is_speed(row.limit));
        })) {
      return;
    }
  } catch (const Json::exception&) {  // something is not there, or of another type
  }
  usage_error("--compare " + path + " is not what qwen bench --json writes",
              "qwen bench MODEL --json > FILE.json");
}

std::optional<BenchRow> EarlierBench::find(const BenchRow& row) const {
  const auto same = [&](const BenchRow& r) {
    return r.is_prefill == row.is_prefill && r.n == row.n && r.depth == row.depth &&
           r.batch == row.batch;
  };
  const auto found = std::find_if(report_.rows.begin(), report_.rows.end(), same);
  return found == report_.rows.end() ? std::nullopt : std::optional(*found);
}

std::string EarlierBench::text() const {
  std::string text = model_text(report_) + "  on  " + device_text(report_);
  if (report_.bandwidth > 0) text += ", " + bandwidth_text(report_);
  return text;
}

Json EarlierBench::json() const {
  return {{"file", path_},
          {"model", report_.model},
          {"device", report_.device},
          {"bandwidth_bytes_s", bandwidth_json(report_)}};
}

std::string bench_header(const BenchReport& report, const EarlierBench* before) {
  std::string text = model_text(report) + "\n" + device_text(report) + "\n";
  text += "a token reads " + thousands(report.weight_bytes) + " bytes of weights and " +
          thousands(report.kv_bytes_per_position) + " per cached token\n";
  if (report.bandwidth > 0) {
    text += bandwidth_text(report) +
            (report.device["kind"] == "cuda" ? ", measured by a matrix-vector product" : "") + "\n";
  }
  if (before != nullptr) text += "before: " + before->text() + "\n";
  std::vector<std::string> titles = {"",      "tokens",      "depth", "batch",
                                     "tok/s", "limit tok/s", "share"};
  if (before != nullptr) titles.emplace_back("now / before");
  return text + cells(titles);
}

std::string bench_line(const BenchReport& report, const BenchRow& row, const EarlierBench* before) {
  std::string text = cells(speed_cells(row.is_prefill ? "prompt" : "decode", row));
  if (before != nullptr) {
    if (const auto then = before->find(row)) {
      std::vector<std::string> values = speed_cells("  before", *then);
      values.resize(7);  // the ratio stands behind the columns of the limit, known or not
      values.push_back(fixed(row.per_second / then->per_second, 2));
      text += cells(values);
    } else {
      text += cells({"  before", "not measured"});
    }
  }
  if (!row.ops.empty()) text += ops_text(report, row);
  return text;
}

Json bench_document(const BenchReport& report, const EarlierBench* before) {
  Json prefill = Json::array();
  Json decode = Json::array();
  for (const BenchRow& row : report.rows) {
    (row.is_prefill ? prefill : decode).push_back(row_json(report, row, before));
  }
  Json out{{"model", report.model},
           {"device", report.device},
           {"bandwidth_bytes_s", bandwidth_json(report)},
           {"weight_bytes_per_token", report.weight_bytes},
           {"kv_bytes_per_position", report.kv_bytes_per_position},
           {"prefill", prefill},
           {"decode", decode},
           {"peak_memory_bytes", report.peak}};
  if (before != nullptr) out["compared_with"] = before->json();
  return out;
}

}  // namespace qwen::cli
