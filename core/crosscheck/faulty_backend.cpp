#include "core/crosscheck/faulty_backend.h"

#include <algorithm>

#include "core/crosscheck/rounded.h"

namespace qwen::crosscheck {

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
  Workbench bench{scratch_, reference_};
  if (!run_variant(plant.cause, bench, host)) {
    inner_(op, running());
    return false;
  }
  const Operands results = operands(host);
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (writes(results[i].access)) inner_.write(*from[i].tensor, results[i].tensor->data);
  }
  return true;
}

}  // namespace qwen::crosscheck
