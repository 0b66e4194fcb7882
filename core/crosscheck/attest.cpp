#include "core/crosscheck/attest.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <set>
#include <type_traits>
#include <utility>

#include "core/blocks.h"
#include "core/crosscheck/wrong_weight.h"

namespace qwen::crosscheck {
namespace {

constexpr std::int64_t kGrain = 1 << 18;  // bytes that a thread compares at a time

// Of a table of inverse frequencies base^(-i / n), n elements, in bytes.
double base_of(const std::vector<std::byte>& table) {
  const std::size_t n = table.size() / sizeof(float);
  if (n < 2) return 1;
  float last = 0;  // it shows the base best
  std::memcpy(&last, table.data() + (n - 1) * sizeof(float), sizeof last);
  return std::pow(double{last}, -static_cast<double>(n) / static_cast<double>(n - 1));
}

// What an op has besides its tensors.
template <class T>
std::vector<std::pair<std::string, double>> fields(const T& op) {
  if constexpr (std::is_same_v<T, RmsNorm>) {
    return {{"eps", op.eps}};
  } else if constexpr (std::is_same_v<T, Attention>) {
    return {{"scale", op.scale}};
  } else {
    return {};
  }
}

// The weights of a plan, by the first op that uses them.
std::vector<NamedWeight> weights_of(const Plan& plan) {
  std::vector<NamedWeight> all;
  for (const Node& node : plan) {
    Op op = node.op;
    for (const Operand& operand : operands(op)) {
      if (operand.access != Access::kConstant) continue;
      const std::string layer =
          node.tap.layer < 0 ? "" : "layer " + std::to_string(node.tap.layer) + " ";
      all.push_back(
          {layer + std::string(node.tap.name) + " " + std::string(operand.name), *operand.tensor});
    }
  }
  return all;
}

class Attester {
 public:
  Attester(const Sides& sides, const Plan& oracle) : sides_(sides), oracle_(oracle) {}

  void compare(const Node& theirs, const Node& ours) {
    if (theirs.op.index() != ours.op.index() || theirs.tap.name != ours.tap.name) {
      find(ours.tap, "op", std::string(name(ours.op)) + " " + std::string(ours.tap.name),
           std::string(name(theirs.op)) + " " + std::string(theirs.tap.name));
      return;
    }
    const auto values = [](const Op& op) {
      return std::visit([](const auto& o) { return fields(o); }, op);
    };
    const auto got = values(theirs.op);
    const auto expected = values(ours.op);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      if (got[i].second == expected[i].second) continue;
      find(ours.tap, expected[i].first, number(expected[i].second), number(got[i].second));
      result.findings.back().is_number = true;
      result.findings.back().cause = "another " + expected[i].first;
    }
    Op a = theirs.op;
    Op b = ours.op;
    const Operands their_tensors = operands(a);
    const Operands our_tensors = operands(b);
    for (std::size_t i = 0; i < our_tensors.size(); ++i) {
      compare_tensor(*their_tensors[i].tensor, our_tensors[i], ours.tap);
    }
  }

  Attestation result;

 private:
  void compare_tensor(const Tensor& theirs, const Operand& ours, const Tap& tap) {
    const Tensor& own = *ours.tensor;
    const auto a = theirs.dims();
    const auto b = own.dims();
    if (theirs.dtype != own.dtype || !std::equal(a.begin(), a.end(), b.begin(), b.end())) {
      find(tap, std::string(ours.name), to_string(own), to_string(theirs));
      return;
    }
    // A constant that many ops share on both sides is read once.
    if (ours.access != Access::kConstant || !seen_.insert({theirs.data, own.data}).second) return;
    ++result.n_constants;
    result.n_bytes += static_cast<std::int64_t>(own.bytes());
    if (own.bytes() > room_) bytes_ = sides_.oracle.allocate(room_ = own.bytes());
    sides_.path.read_weight(bytes_.get(), theirs);
    if (same_as_read(own)) return;
    describe(own, {bytes_.get(), bytes_.get() + own.bytes()}, ours, tap);
  }

  bool same_as_read(const Tensor& own) const {
    std::atomic<bool> same = true;
    sides_.host.parallel_for(static_cast<std::int64_t>(own.bytes()), kGrain,
                             [&](std::int64_t begin, std::int64_t end) {
                               if (std::memcmp(bytes_.get() + begin, own.data + begin,
                                               static_cast<std::size_t>(end - begin)) != 0) {
                                 same = false;
                               }
                             });
    return same;
  }

  void describe(const Tensor& own, const std::vector<std::byte>& read, const Operand& ours,
                const Tap& tap) {
    const std::int64_t n_rows = own.rows();
    const auto row_bytes = own.row_bytes();
    std::int64_t wrong = 0;
    std::int64_t first = -1;
    for (std::int64_t r = 0; r < n_rows; ++r) {
      const std::size_t at = static_cast<std::size_t>(r) * row_bytes;
      if (std::memcmp(read.data() + at, own.data + at, row_bytes) == 0) continue;
      ++wrong;
      if (first < 0) first = r;
    }
    find(tap, std::string(ours.name), to_string(own) + " of the file",
         std::to_string(wrong) + " of " + std::to_string(n_rows) +
             " rows differ, the first is row " + std::to_string(first));
    result.findings.back().cause = ours.name == "inv_freq"
                                       ? "the table of base " + number(base_of(read))
                                       : cause_of(own, read, weights_of(oracle_));
    result.findings.back().is_constant = true;
    result.wrong.push_back({own.data, read});
  }

  void find(const Tap& tap, std::string operand, std::string expected, std::string got) {
    result.findings.push_back({tap, std::move(operand), std::move(expected), std::move(got)});
  }

  const Sides& sides_;
  const Plan& oracle_;
  std::set<std::pair<const std::byte*, const std::byte*>> seen_;
  Buffer bytes_ = nullptr;  // of the constant that was read
  std::size_t room_ = 0;
};

}  // namespace

std::string number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", v);
  return text;
}

Attestation attest(const Sides& sides, const Plan& path, const Plan& oracle) {
  Attester attester(sides, oracle);
  for (std::size_t i = 0; i < std::min(path.size(), oracle.size()); ++i) {
    attester.compare(path[i], oracle[i]);
  }
  if (path.size() != oracle.size()) {
    attester.result.findings.push_back(
        {{}, "ops", std::to_string(oracle.size()) + " ops", std::to_string(path.size()) + " ops"});
  }
  return std::move(attester.result);
}

}  // namespace qwen::crosscheck
