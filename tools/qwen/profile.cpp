#include "tools/qwen/profile.h"

#include <algorithm>
#include <limits>

namespace qwen::cli {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The least of many: what comes on top is not the wait's own.
double wait_seconds(Backend& backend, const Op& op) {
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 100; ++i) {
    const Clock::time_point start = Clock::now();
    wait_for(backend, op);
    least = std::min(least, seconds_since(start));
  }
  return least;
}

}  // namespace

void wait_for(Backend& backend, const Op& op) {
  Op copy = op;
  const Tensor out = *operands(copy).front().tensor;
  std::byte byte{};
  if (out.bytes() > 0) backend.read(&byte, Tensor(out.data, DType::kI8, {1}));
}

void Profile::before(const Op&, const Tap&) { start_ = Clock::now(); }

void Profile::after(const Op& op, const Tap& tap) {
  const bool queues = backend_.queue_depth() > 0;
  if (queues) wait_for(backend_, op);
  double spent = seconds_since(start_);
  if (queues) {
    if (wait_s_ < 0) wait_s_ = wait_seconds(backend_, op);
    spent = std::max(spent - wait_s_, 1e-9);
  }
  auto at = rows_.find(tap.name);
  if (at == rows_.end()) {
    const std::string name(tap.name);
    at = rows_.emplace(name, Row{.op = std::string(qwen::name(op)), .tap = name}).first;
  }
  Row& row = at->second;
  ++row.calls;
  row.seconds += spent;
  row.bytes += qwen::bytes(op, kv_len_);
}

std::vector<Profile::Row> Profile::rows() const {
  std::vector<Row> out;
  for (const auto& [tap, row] : rows_) out.push_back(row);
  std::sort(out.begin(), out.end(),
            [](const Row& a, const Row& b) { return a.seconds > b.seconds; });
  return out;
}

void StepBytes::after(const Op& op, const Tap&) {
  Op copy = op;
  for (const Operand& operand : operands(copy)) {
    const Tensor& t = *operand.tensor;
    if (operand.name == "weight" || operand.name == "bias") {
      weights_ += static_cast<std::int64_t>(t.bytes());
    } else if (operand.name == "table") {
      weights_ += static_cast<std::int64_t>(t.row_bytes());  // of one token
    } else if (std::holds_alternative<Attention>(op) &&
               (operand.name == "k_cache" || operand.name == "v_cache")) {
      // (n_pages, n_kv_heads, page_tokens, head_dim)
      kv_per_position_ += t.shape[1] * static_cast<std::int64_t>(t.row_bytes());
    }
  }
}

}  // namespace qwen::cli
