#include "tools/qwen/profile.h"

#include <algorithm>

namespace qwen::cli {

void Profile::before(const Op&, const Tap&) { start_ = std::chrono::steady_clock::now(); }

void Profile::after(const Op& op, const Tap& tap) {
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start_;
  auto at = rows_.find(tap.name);
  if (at == rows_.end()) {
    const std::string name(tap.name);
    at = rows_.emplace(name, Row{.op = std::string(qwen::name(op)), .tap = name}).first;
  }
  Row& row = at->second;
  ++row.calls;
  row.seconds += spent.count();
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
