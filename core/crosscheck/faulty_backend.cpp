#include "core/crosscheck/faulty_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "core/crosscheck/judge.h"
#include "core/crosscheck/rounded.h"
#include "core/kv_layout.h"

namespace qwen::crosscheck {
namespace {

// Of an output's largest value. What is less is another order of additions (sums kept in F16:
// 2^-11); no tolerance is more.
constexpr double kRounding = 0x1p-16;
constexpr double kClear = 0x1p-8;

double largest_of(const Tensor& t) {
  double largest = 0;
  for (std::int64_t i = 0; i < t.size(); ++i) {
    if (std::isfinite(t.f32()[i])) largest = std::max(largest, std::abs(double{t.f32()[i]}));
  }
  return largest;
}

// The element of largest change, its ratio, of each row that has changed.
std::vector<Element> changed_rows(const Tensor& right, const Tensor& got) {
  std::vector<Element> rows;
  const std::int64_t per_row = right.size() / right.shape[0];
  for (std::int64_t begin = 0; begin < right.size(); begin += per_row) {
    Element worst;
    for (std::int64_t i = begin; i < begin + per_row; ++i) {
      const Element e{i, got.f32()[i], right.f32()[i], 1};
      if (e.ratio() > worst.ratio()) worst = e;
    }
    if (worst.ratio() > 0) rows.push_back(worst);
  }
  return rows;
}

// The token of an element, if the op is the step's: replays run it with some of its rows. Not by
// the code that says where a check failed, which this one checks.
std::optional<Planted::Place> place_of(const Op& op, const Operand& written, std::int64_t element,
                                       std::vector<TokenInput> tokens) {
  const Tensor& output = *written.tensor;
  if (const auto* write = std::get_if<KvWrite>(&op)) {
    const KvLayout layout = kv_layout(write->k_cache, write->pages);
    const std::int32_t* pages = write->pages.i32();
    for (std::int32_t seq = 0; seq < write->pages.shape[0]; ++seq) {
      for (std::int64_t pos = 0; pos < layout.pages_per_seq * layout.page_tokens; ++pos) {
        if (pages[seq * layout.pages_per_seq + pos / layout.page_tokens] < 0) continue;
        for (std::int64_t head = 0; head < layout.n_kv_heads; ++head) {
          const std::int64_t d = element - kv_offset(layout, pages, seq, head, pos, 0);
          if (d >= 0 && d < layout.head_dim) return Planted::Place{seq, pos};
        }
      }
    }
    return Planted::Place{-1, 0};
  }
  const bool by_sequence = written.name == "seen";
  if (by_sequence || output.shape[0] < static_cast<std::int64_t>(tokens.size())) {
    std::erase_if(tokens, [](const TokenInput& t) { return !t.wants_logits; });
  }
  if (!by_sequence && output.shape[0] != static_cast<std::int64_t>(tokens.size())) {
    return std::nullopt;
  }
  const std::int64_t row = element / (output.size() / output.shape[0]);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::int64_t at = by_sequence ? tokens[i].seq : static_cast<std::int64_t>(i);
    if (at == row) return Planted::Place{tokens[i].seq, tokens[i].pos};
  }
  return std::nullopt;
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
  const auto plant = std::find_if(plants_.begin(), plants_.end(), [&](const Plant& p) {
    return p.tap == running().name && (p.layer < 0 || p.layer == running().layer);
  });
  if (plant == plants_.end() || n_runs_[{running().name, running().layer}]++ < plant->after) {
    inner_(op, running());
  } else {
    run_planted(*plant, op);
  }
}

Op FaultyBackend::in_host_memory(const Op& op) {
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
  return host;
}

void FaultyBackend::run_planted(const Plant& plant, const Op& op) {
  scratch_.reset();
  Op theirs = op;
  Op host = rounded(in_host_memory(op), inner_.contract(op), reference_, scratch_).op;
  Op right = with_own_outputs(host, scratch_);
  reference_(right);
  const std::vector<Tensor> outputs = written(theirs);
  if (plant.mishap != Mishap::kNone) {
    if (!mishaps_.run(plant.mishap, op, running())) return;
    const std::vector<Tensor> got = written(host);
    for (std::size_t i = 0; i < got.size(); ++i) inner_.read(got[i].data, outputs[i]);
    note_changes(right, got);
    return;
  }
  Workbench bench{scratch_, reference_};
  const bool has_run = run_variant(plant.cause, bench, host);
  const std::vector<Tensor> got = written(host);  // of what the variant has made of the op
  if (!has_run || !note_changes(right, got)) return inner_(op, running());
  for (std::size_t i = 0; i < got.size(); ++i) inner_.write(outputs[i], got[i].data);
}

bool FaultyBackend::note_changes(Op& right, const std::vector<Tensor>& got) {
  struct Changed {
    const Operand& operand;
    std::vector<Element> elements;
    double largest;
  };
  std::vector<Changed> all;
  const Operands outputs = operands(right);
  bool changes = false;
  std::size_t n = 0;
  for (const Operand& operand : outputs) {
    if (!writes(operand.access)) continue;
    const Tensor& expected = *operand.tensor;
    const Tensor& theirs = got[n++];
    Changed changed{operand, {}, 0};
    if (!is_bit_exact(right)) {
      changed.elements = changed_rows(expected, theirs);
      changed.largest = largest_of(expected);
    } else if (const Judgement j = compare_bits(expected, theirs); j.n_failed > 0) {
      changed.elements = {j.first};
    }
    changes |= std::any_of(changed.elements.begin(), changed.elements.end(), [&](const Element& e) {
      return e.ratio() > kRounding * changed.largest;
    });
    all.push_back(std::move(changed));
  }
  if (!changes) return false;
  for (const Changed& changed : all) {
    if (changed.elements.empty()) continue;
    Planted& planted = planted_[{running().name, running().layer, changed.operand.name}];
    for (const Element& e : changed.elements) {
      const auto place = place_of(right, changed.operand, e.index, tokens_);
      if (place && !planted.is_clear) planted.places.push_back(*place);
      planted.is_clear |= e.ratio() > kClear * changed.largest;
      planted.by_more_than_rounding |= e.ratio() > kRounding * changed.largest;
    }
  }
  return true;
}

}  // namespace qwen::crosscheck
