#include "core/crosscheck/against.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <utility>

#include "core/crosscheck/scratch.h"
#include "core/error.h"
#include "core/half.h"
#include "core/session.h"

namespace qwen::crosscheck {
namespace {

// Of a step: the logits of all its rows are kept.
constexpr std::size_t kStepTokens = 64;

bool is_float(NpyType type) {
  return type == NpyType::kF4 || type == NpyType::kF8 || type == NpyType::kF2;
}

double value(const NpyArray& array, std::int64_t i) {
  const auto at = [&](auto zero) {
    std::memcpy(&zero, array.bytes.data() + static_cast<std::size_t>(i) * sizeof zero, sizeof zero);
    return zero;
  };
  if (array.type == NpyType::kF4) return at(0.0F);
  return array.type == NpyType::kF8 ? at(0.0) : f16_to_f32(at(std::uint16_t{0}));
}

double difference(double got, double outside) {
  const double error = std::abs(got - outside);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

// An array, and the node of the plan that makes its values.
struct Pair {
  const OutsideArray* array;
  std::size_t node;
  bool has_tokens;  // else it is the last token's row
};

std::string place(const OutsideArray& array) {
  return "'" + array.tap + "'" +
         (array.layer < 0 ? std::string() : " of layer " + std::to_string(array.layer));
}

// `plan` is a step of one token.
Pair find_pair(const OutsideArray& array, const Plan& plan, std::int64_t n_tokens) {
  const auto node = std::find_if(plan.begin(), plan.end(), [&](const Node& n) {
    return n.tap.name == array.tap && n.tap.layer == array.layer &&
           !std::holds_alternative<KvWrite>(n.op);
  });
  if (node == plan.end()) {
    throw Error({.exit = Exit::kModel,
                 .code = "no_such_tap",
                 .message = array.name + ": the model has no value " + place(array),
                 .hint = "a manifest may map names: {\"names\": {\"" + array.name +
                         "\": \"L00.q_proj\", \"another\": null}}"});
  }
  const Tensor row = output_of(node->op);
  const std::vector<std::int64_t>& shape = array.values.shape;
  const std::int64_t size = array.values.size();
  const bool has_tokens = shape.front() == n_tokens && size == n_tokens * row.size();
  // Two splits of a row are the same only if one of them has it in one piece.
  const bool same_split = !has_tokens || static_cast<int>(shape.size()) != row.rank ||
                          std::equal(shape.begin() + 1, shape.end(), row.dims().begin() + 1);
  if (is_float(array.values.type) && same_split && (has_tokens || size == row.size())) {
    return {&array, static_cast<std::size_t>(node - plan.begin()), has_tokens};
  }
  std::vector<std::int64_t> own(row.dims().begin(), row.dims().end());
  own.front() = n_tokens;
  throw Error({.exit = Exit::kModel,
               .code = "wrong_shape",
               .message = array.name + ": " + place(array) + " has shape " + shape_string(own) +
                          " here, the array " + shape_string(shape) +
                          (is_float(array.values.type) ? "" : " of integers"),
               .hint = "floats in C order, the tokens of the manifest's ids first; it may be "
                       "another model or text"});
}

// Compares what comes by.
class Comparison : public Observer {
 public:
  Comparison(Backend& backend, DType kv_dtype, std::int64_t n_tokens, std::vector<Pair> pairs,
             const Plan& plan)
      : backend_(backend), n_tokens_(n_tokens), pairs_(std::move(pairs)) {
    result_.is_f32 = kv_dtype == DType::kF32;
    for (const Pair& pair : pairs_) {
      result_.compared.push_back({.name = pair.array->name,
                                  .tap = plan[pair.node].tap,
                                  .shape = pair.array->values.shape});
    }
  }

  void begin(std::int64_t first_token) {
    first_token_ = first_token;
    next_ = 0;
  }

  void after(const Op& op, const Tap& /*tap*/) override {
    const Contract contract = backend_.contract(op);
    if (contract.input_unit > 0 || contract.weight_unit > 0 || contract.probability_unit > 0 ||
        contract.int8_fine_from > 0) {
      result_.is_f32 = false;
    }
    std::vector<float> got;
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
      if (pairs_[i].node != next_) continue;
      const Tensor out = output_of(op);
      got.resize(static_cast<std::size_t>(out.size()));
      if (got.empty()) continue;
      backend_.read(got.data(), out);
      compare(pairs_[i], got, out.shape[0], result_.compared[i]);
    }
    ++next_;
  }

  const AgainstResult& result() const { return result_; }

 private:
  void compare(const Pair& pair, const std::vector<float>& got, std::int64_t n_rows,
               Compared& compared) const {
    const std::size_t per_row = got.size() / static_cast<std::size_t>(n_rows);
    for (std::int64_t r = 0; r < n_rows; ++r) {
      const std::int64_t token = first_token_ + r;
      if (!pair.has_tokens && token != n_tokens_ - 1) continue;
      compare_row(pair, token,
                  std::span(got).subspan(static_cast<std::size_t>(r) * per_row, per_row), compared);
    }
  }

  static void compare_row(const Pair& pair, std::int64_t token, std::span<const float> got,
                          Compared& compared) {
    const NpyArray& array = pair.array->values;
    const std::int64_t begin = pair.has_tokens ? token * static_cast<std::int64_t>(got.size()) : 0;
    const bool differed = compared.differs();
    Compared::Place worst{.token = token};
    Compared row;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const auto at = static_cast<std::int64_t>(i);
      const double outside = value(array, begin + at);
      if (std::isfinite(outside)) row.largest = std::max(row.largest, std::abs(outside));
      const double error = difference(got[i], outside);
      if (i > 0 && error <= row.error) continue;
      row.error = error;
      worst.coords = {at};
      worst.got = got[i];
      worst.outside = outside;
    }
    const bool is_first = token == 0 || !pair.has_tokens;
    if (is_first || row.share() > compared.share()) {
      compared.largest = row.largest;
      compared.error = row.error;
    }
    if (differed || !compared.differs()) return;
    worst.coords = coords(array, pair.has_tokens, worst.coords.front());
    compared.first = worst;
  }

  // Of element i of a row, as the array splits it.
  static std::vector<std::int64_t> coords(const NpyArray& array, bool has_tokens, std::int64_t i) {
    std::vector<std::int64_t> split(array.shape.begin() + (has_tokens ? 1 : 0), array.shape.end());
    for (auto dim = split.rbegin(); dim != split.rend(); ++dim) {
      const std::int64_t n = *dim;
      *dim = i % n;
      i /= n;
    }
    return split;
  }

  Backend& backend_;
  std::int64_t n_tokens_;
  std::vector<Pair> pairs_;
  std::int64_t first_token_ = 0;
  std::size_t next_ = 0;  // node of the step
  AgainstResult result_;
};

}  // namespace

double Compared::share() const {
  if (error == 0) return 0;
  return largest > 0 ? error / largest : std::numeric_limits<double>::infinity();
}

bool is_inside_op(std::string_view tap) {
  return tap == "attn_scores" || tap == "attn_probs" || tap == "attn_lse";
}

AgainstResult against(const Model& model, Backend& backend, const std::vector<OutsideArray>& arrays,
                      const AgainstOptions& options) {
  const std::size_t n = options.ids.size();
  const auto step = static_cast<std::int64_t>(std::min(n, kStepTokens));
  Session session(model, backend,
                  {.ctx = static_cast<std::int64_t>(n),
                   .max_step_tokens = step,
                   .max_step_rows = step,
                   .kv_dtype = options.kv_dtype});
  std::vector<TokenInput> tokens;
  for (std::size_t i = 0; i < n; ++i) {
    tokens.push_back({options.ids[i], static_cast<std::int32_t>(i), 0, true});
  }
  Plan plan;
  {
    const RecordingScope recording(backend, plan);
    session.step(std::span(tokens).first(1));
  }
  std::vector<Pair> pairs;
  for (const OutsideArray& array : arrays) {
    pairs.push_back(find_pair(array, plan, static_cast<std::int64_t>(n)));
  }
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const Pair& a, const Pair& b) { return a.node < b.node; });
  Comparison comparison(backend, options.kv_dtype, static_cast<std::int64_t>(n), std::move(pairs),
                        plan);
  const ObservingScope observing(backend, &comparison);
  for (std::size_t first = 0; first < n; first += kStepTokens) {
    comparison.begin(static_cast<std::int64_t>(first));
    session.step(std::span(tokens).subspan(first, std::min(kStepTokens, n - first)));
  }
  return comparison.result();
}

}  // namespace qwen::crosscheck
