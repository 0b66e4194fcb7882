#include "core/crosscheck/faulty_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/crosscheck/rounded.h"

namespace qwen::crosscheck {
namespace {

// Of the largest value: what is less is another order of additions. (Sums kept in F16: 2^-11.)
constexpr float kRounding = 0x1p-16f;

bool is_changed(const Tensor& right, const Tensor& wrong) {
  if (right.dtype != DType::kF32) return std::memcmp(right.data, wrong.data, right.bytes()) != 0;
  float largest = 0;
  float change = 0;
  for (std::int64_t i = 0; i < right.size(); ++i) {
    const float expected = right.f32()[i];
    const float got = wrong.f32()[i];
    const bool same = expected == got || (std::isnan(expected) && std::isnan(got));
    if (!same && !std::isfinite(expected - got)) return true;
    if (!std::isfinite(expected)) continue;  // what nobody has written is not-a-number
    largest = std::max(largest, std::abs(expected));
    change = std::max(change, std::abs(got - expected));
  }
  return change > kRounding * largest;
}

}  // namespace

Tensor FaultyBackend::place_weight(const Tensor& host) {
  const Tensor placed = inner_.place_weight(host);
  host_[placed.data] = host;
  return placed;
}

void FaultyBackend::drop_weight(const Tensor& weight) {
  host_.erase(weight.data);
  inner_.drop_weight(weight);
}

void FaultyBackend::run_op(const Op& op) {
  const auto planted = std::find_if(plants_.begin(), plants_.end(), [&](const Plant& plant) {
    return plant.tap == running().name && (plant.layer < 0 || plant.layer == running().layer);
  });
  if (planted == plants_.end()) {
    inner_(op, running());
  } else if (run_planted(*planted, op)) {
    planted_.insert({planted->tap, running().layer});
  }
}

bool FaultyBackend::run_planted(const Plant& plant, const Op& op) {
  if (plant.mishap != Mishap::kNone) return mishaps_.run(plant.mishap, op, running());
  scratch_.reset();
  Op theirs = op;
  Op host = op;
  const Operands from = operands(theirs);
  const Operands to = operands(host);
  for (std::size_t i = 0; i < to.size(); ++i) {
    const Tensor& tensor = *from[i].tensor;
    const auto weight = host_.find(tensor.data);
    if (to[i].access == Access::kConstant && weight != host_.end()) {
      *to[i].tensor = weight->second;
      continue;
    }
    *to[i].tensor = scratch_.take(tensor.dtype, tensor.dims());
    inner_.read(to[i].tensor->data, tensor);
  }
  host = rounded(host, inner_.contract(op), reference_, scratch_).op;
  Op right = with_own_outputs(host, scratch_);
  reference_(right);
  Workbench bench{scratch_, reference_};
  const bool has_run = run_variant(plant.cause, bench, host);
  const std::vector<Tensor> expected = written(right);
  const std::vector<Tensor> results = written(host);
  bool changes = false;
  for (std::size_t i = 0; has_run && i < results.size(); ++i) {
    changes = changes || is_changed(expected[i], results[i]);
  }
  if (!changes) {
    inner_(op, running());
    return false;
  }
  const std::vector<Tensor> outputs = written(theirs);
  for (std::size_t i = 0; i < results.size(); ++i) inner_.write(outputs[i], results[i].data);
  return true;
}

}  // namespace qwen::crosscheck
