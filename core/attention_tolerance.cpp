#include "core/attention_tolerance.h"

#include <algorithm>
#include <cmath>

#include "core/kv_layout.h"
#include "core/rounding.h"

namespace qwen {
namespace {

constexpr double kLambda = 7.9;  // of one sum of independent errors (contract.h)

}  // namespace

// Of one row after the other.
struct AttentionTolerance::Sums {
  Sums(std::size_t n_contracts, std::int64_t head_dim)
      : of_contract(n_contracts),
        share(static_cast<std::size_t>(head_dim)),
        value_size(share.size()),
        value_squares(share.size()),
        value_sum(share.size()) {
    for (OfContract& c : of_contract) c.value_error.resize(share.size());
  }

  // Of the keys.
  std::vector<double> score, size, weight;
  double max = 0;
  double total = 0;  // of the weights
  struct OfContract {
    std::vector<double> delta;  // of the scores
    double delta_max = 0;
    double weight_error = 0;
    std::vector<double> value_error;  // of the dimensions
  };
  std::vector<OfContract> of_contract;
  // Of the dimensions.
  std::vector<double> share;  // of one key
  std::vector<double> value_size, value_squares, value_sum;
};

AttentionTolerance::AttentionTolerance(const Attention& op, const std::vector<Contract>& contracts,
                                       const Tensor& exact, const Tensor& exact_lse)
    : op_(op), exact_(exact), exact_lse_(exact_lse) {
  for (const Contract& c : contracts) {
    roundings_.push_back({.score = growth(c.sum_depth, c.truncates) + c.input_unit,
                          .value_growth = growth(c.value_sum_depth, c.truncates),
                          .probability_unit = c.probability_unit,
                          .probability_step = c.probability_step});
    rounds_probabilities_ |= c.probability_unit != 0;
  }
  for (std::int64_t t = 0; t < op.q.shape[0]; ++t) {
    const std::int32_t seq = op.seq.i32()[t];
    const auto known = std::find_if(sequences_.begin(), sequences_.end(),
                                    [seq](const Cached& c) { return c.seq == seq; });
    Cached& own = known != sequences_.end() ? *known : sequences_.emplace_back(Cached{seq, 0, 0});
    own.n = std::max<std::int64_t>(own.n, op.pos.i32()[t] + 1);
  }
  for (Cached& c : sequences_) {
    c.first_key = n_keys_;
    n_keys_ += op.k_cache.shape[1] * c.n;
  }
  const auto n = static_cast<std::size_t>(n_keys_ * op.q.shape[2]);
  keys_ = std::make_unique_for_overwrite<float[]>(n);
  values_ = std::make_unique_for_overwrite<float[]>(n);
}

const AttentionTolerance::Cached& AttentionTolerance::cached(std::int32_t seq) const {
  return *std::find_if(sequences_.begin(), sequences_.end(),
                       [seq](const Cached& c) { return c.seq == seq; });
}

void AttentionTolerance::load(std::int64_t begin, std::int64_t end) {
  const KvLayout layout = kv_layout(op_.k_cache, op_.pages);
  for (const Cached& c : sequences_) {
    const std::int64_t past = std::min(end, c.first_key + layout.n_kv_heads * c.n);
    for (std::int64_t key = std::max(begin, c.first_key); key < past; ++key) {
      const std::int64_t kv_head = (key - c.first_key) / c.n;
      const std::int64_t pos = (key - c.first_key) % c.n;
      const std::int64_t at = kv_offset(layout, op_.pages.i32(), c.seq, kv_head, pos, 0);
      for (std::int64_t d = 0; d < layout.head_dim; ++d) {
        keys_[static_cast<std::size_t>(key * layout.head_dim + d)] =
            cache_value(op_.k_cache, at + d);
        values_[static_cast<std::size_t>(key * layout.head_dim + d)] =
            cache_value(op_.v_cache, at + d);
      }
    }
  }
}

Tolerance AttentionTolerance::rows(std::int64_t begin, std::int64_t end) const {
  const std::int64_t n_heads = op_.q.shape[1];
  const std::int64_t head_dim = op_.q.shape[2];
  const std::int64_t group = n_heads / op_.k_cache.shape[1];
  Tolerance t;
  t.out.resize(static_cast<std::size_t>((end - begin) * head_dim));
  t.lse.resize(static_cast<std::size_t>(end - begin));
  Sums sums(roundings_.size(), head_dim);
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t token = row / n_heads;
    const Cached& sequence = cached(op_.seq.i32()[token]);
    const std::int64_t first = sequence.first_key + row % n_heads / group * sequence.n;
    sums.score.resize(static_cast<std::size_t>(op_.pos.i32()[token]) + 1);
    sum_scores(row, keys_.get() + first * head_dim, sums);
    sum_values(values_.get() + first * head_dim, sums);
    const auto i = static_cast<std::size_t>(row - begin);
    bound_row(row, sums, t.out.data() + i * static_cast<std::size_t>(head_dim), t.lse[i]);
  }
  return t;
}

// A score is off by delta; so its weight by a factor within 1 +- epsilon, which also holds what the
// running maximum, the exponential and the rescaling of the online softmax round.
void AttentionTolerance::sum_scores(std::int64_t row, const float* keys, Sums& sums) const {
  const std::int64_t head_dim = op_.q.shape[2];
  const float* const q = op_.q.f32() + row * head_dim;
  const std::size_t n = sums.score.size();
  sums.size.resize(n);
  sums.weight.resize(n);
  for (std::size_t j = 0; j < n; ++j, keys += head_dim) {
    Lanes dot;
    Lanes size;
    in_lanes(head_dim, [&](std::int64_t d, std::int64_t lane) {
      const double product = double{q[d]} * keys[d];
      dot.v[lane] += product;
      size.v[lane] += std::abs(product);
    });
    sums.score[j] = op_.scale * dot.sum();
    sums.size[j] = size.sum();
  }
  sums.max = *std::max_element(sums.score.begin(), sums.score.end());
  sums.total = 0;
  for (std::size_t j = 0; j < n; ++j) {
    sums.weight[j] = std::exp(sums.score[j] - sums.max);
    sums.total += sums.weight[j];
  }
  for (std::size_t c = 0; c < roundings_.size(); ++c) {
    Sums::OfContract& own = sums.of_contract[c];
    own.delta.resize(n);
    own.delta_max = 0;
    for (std::size_t j = 0; j < n; ++j) {
      own.delta[j] =
          op_.scale * roundings_[c].score * sums.size[j] + 2 * kUnit * std::abs(sums.score[j]);
      if (sums.score[j] > sums.max - 1) own.delta_max = std::max(own.delta_max, own.delta[j]);
    }
  }
}

void AttentionTolerance::sum_values(const float* values, Sums& sums) const {
  const std::size_t head_dim = sums.share.size();
  for (auto* sum : {&sums.value_size, &sums.value_squares, &sums.value_sum}) {
    std::fill(sum->begin(), sum->end(), 0);
  }
  for (Sums::OfContract& c : sums.of_contract) {
    c.weight_error = 0;
    std::fill(c.value_error.begin(), c.value_error.end(), 0);
  }
  double* const share = sums.share.data();
  double* const sizes = sums.value_size.data();
  for (std::size_t j = 0; j < sums.score.size(); ++j, values += head_dim) {
    const double p = sums.weight[j] / sums.total;
    if (p == 0) continue;
    for (std::size_t d = 0; d < head_dim; ++d) {
      share[d] = p * std::abs(double{values[d]});
      sizes[d] += share[d];
    }
    const double distance = 3 * std::abs(sums.score[j] - sums.max) * kUnit;
    for (Sums::OfContract& c : sums.of_contract) {
      const double epsilon = std::expm1(c.delta[j] + c.delta_max + distance) + 6 * kUnit;
      c.weight_error += p * epsilon;
      double* const errors = c.value_error.data();
      for (std::size_t d = 0; d < head_dim; ++d) errors[d] += share[d] * (epsilon + kUnit);
    }
    if (!rounds_probabilities_) continue;
    for (std::size_t d = 0; d < head_dim; ++d) {
      const double v = std::abs(double{values[d]});
      sums.value_squares[d] += share[d] * p * v;
      sums.value_sum[d] += v;
    }
  }
}

void AttentionTolerance::bound_row(std::int64_t row, const Sums& sums, double* out,
                                   double& lse) const {
  const std::size_t head_dim = sums.share.size();
  const float* const exact = exact_.f32() + row * op_.q.shape[2];
  const double n = static_cast<double>(sums.score.size());
  for (std::size_t c = 0; c < roundings_.size(); ++c) {
    const Rounding& r = roundings_[c];
    const Sums::OfContract& own = sums.of_contract[c];
    lse += own.weight_error + own.delta_max + n * kUnit +
           4 * kUnit * (1 + std::abs(exact_lse_.f32()[row]));
    for (std::size_t d = 0; d < head_dim; ++d) {
      const double o = std::abs(exact[d]);
      const double size = sums.value_size[d];
      double rounded = 0;
      if (r.probability_unit != 0) {
        rounded = r.probability_unit * std::min(size, kLambda * std::sqrt(sums.value_squares[d])) +
                  r.probability_step * sums.value_sum[d] / sums.total;
      }
      out[d] += own.value_error[d] + rounded + o * (own.weight_error + n * kUnit) +
                r.value_growth * (size + rounded) + 2 * kUnit * o;
    }
  }
}

}  // namespace qwen
