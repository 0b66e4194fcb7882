#include "core/crosscheck/cause.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "core/crosscheck/judge.h"

namespace qwen::crosscheck {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Elements of a Gemm that a variant is tried on: as many that failed and that passed.
constexpr std::int64_t kGemmElements = 24;
// What a narrower type adds to the bound of a noise variant: the unit roundoff of F16.
constexpr double kHalfUnit = 0x1p-11;

std::vector<Tensor> outputs(Op& op) {
  std::vector<Tensor> all;
  for (const Operand& operand : operands(op)) {
    if (writes(operand.access)) all.push_back(*operand.tensor);
  }
  return all;
}

// Each bound becomes the largest of its token's row: a variant that moves elements moves their
// bounds with them.
void widen_to_rows(std::vector<double>& bounds, std::int64_t n_rows) {
  const auto n = static_cast<std::ptrdiff_t>(bounds.size()) / n_rows;
  for (std::int64_t r = 0; r < n_rows; ++r) {
    const auto begin = bounds.begin() + r * n;
    std::fill(begin, begin + n, *std::max_element(begin, begin + n));
  }
}

double largest_ratio(const Tensor& got, const Tensor& expected, const std::vector<double>& bounds,
                     bool is_noise) {
  double worst = 0;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const double value = expected.f32()[i];
    const double extra = is_noise ? kHalfUnit * std::abs(value) : 0;
    const Element e{i, got.f32()[i], value, bounds[i] + extra};
    worst = std::max(worst, e.ratio());
  }
  return worst;
}

// How far `got` is from what the variant left in `op`.
double distance(const Sides& sides, Op& op, const std::vector<Tensor>& got, bool is_noise) {
  const std::vector<Tensor> expected = outputs(op);
  if (is_bit_exact(op)) {
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (std::memcmp(got[i].data, expected[i].data, got[i].bytes()) != 0) return kInfinity;
    }
    return 0;
  }
  const Tensor lse = expected.size() > 1 ? expected[1] : Tensor();
  Tolerance t = tolerance(op, sides.path.contract(op), expected[0], lse);
  widen_to_rows(t.out, expected[0].shape[0]);
  double worst = largest_ratio(got[0], expected[0], t.out, is_noise);
  if (expected.size() > 1) {
    widen_to_rows(t.lse, lse.shape[0]);
    worst = std::max(worst, largest_ratio(got[1], lse, t.lse, is_noise));
  }
  return worst;
}

std::string ratio_text(double ratio) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2g", ratio);
  return text;
}

}  // namespace

void Hypotheses::note(Class& c, std::string_view cause, bool is_noise, double ratio) {
  const auto known = std::find_if(c.candidates.begin(), c.candidates.end(),
                                  [&](const Candidate& k) { return k.cause == cause; });
  if (known == c.candidates.end()) {
    c.candidates.push_back({cause, is_noise, ratio});
  } else {
    known->worst = std::max(known->worst, ratio);
  }
}

bool Hypotheses::hopeless(const Class& c, std::string_view cause) {
  return std::any_of(c.candidates.begin(), c.candidates.end(),
                     [&](const Candidate& k) { return k.cause == cause && k.worst > kHopeless; });
}

void Hypotheses::try_all(Class& c, const Op& inputs, const std::vector<Tensor>& got) {
  for (const auto& variants : {token_variants(), attention_variants()}) {
    for (const Variant& v : variants) {
      if (hopeless(c, v.cause)) continue;
      scratch_.reset();
      Workbench bench{scratch_, sides_.reference};
      Op op = copy_of(inputs, scratch_);
      if (v.run(bench, op)) note(c, v.cause, v.is_noise, distance(sides_, op, got, v.is_noise));
    }
  }
}

void Hypotheses::try_gemm(Class& c, const Op& inputs, const std::vector<Tensor>& got,
                          const std::vector<std::int64_t>& failed) {
  const auto& op = std::get<Gemm>(inputs);
  const std::int64_t n = op.out.size();
  std::vector<std::int64_t> tried;
  const auto take_some = [&](std::int64_t size, const auto& element) {
    const std::int64_t step = std::max<std::int64_t>(1, size / kGemmElements);
    for (std::int64_t i = 0; i < size; i += step) tried.push_back(element(i));
  };
  take_some(static_cast<std::int64_t>(failed.size()), [&](std::int64_t i) { return failed[i]; });
  take_some(n, [](std::int64_t i) { return i; });
  WeightReader weight(op.weight);
  GemmTolerance bound(op, sides_.path.contract(inputs), op.out);
  for (const GemmVariant& v : gemm_variants()) {
    if (hopeless(c, v.cause)) continue;
    double worst = 0;
    bool applies = true;
    for (const std::int64_t i : tried) {
      WrongSum s;
      if (!v.element(weight, op, i / weight.rows(), i % weight.rows(), s)) {
        applies = false;
        break;
      }
      const float* row = weight.row(i % weight.rows());
      double weight_sum = 0;
      for (std::int64_t k = 0; k < weight.cols(); ++k) weight_sum += std::abs(double{row[k]});
      const double tolerance = bound.of(std::abs(s.sum), s.size, weight_sum) +
                               (v.is_noise ? kHalfUnit * std::abs(s.sum) : 0);
      worst = std::max(worst, Element{i, got[0].f32()[i], s.sum, tolerance}.ratio());
    }
    if (applies) note(c, v.cause, v.is_noise, worst);
  }
}

int Hypotheses::add_site(const Op& inputs, const Tap& tap, const std::vector<Tensor>& got,
                         const std::vector<std::int64_t>& failed) {
  const auto known = std::find_if(classes_.begin(), classes_.end(), [&](const Class& c) {
    return c.name == tap.name && c.sites > 0;
  });
  const int index = static_cast<int>(known - classes_.begin());
  if (known == classes_.end()) classes_.push_back({.name = std::string(tap.name)});
  Class& c = classes_[static_cast<std::size_t>(index)];
  if (c.sites >= kMaxSites) return index;
  ++c.sites;
  if (std::holds_alternative<Gemm>(inputs)) {
    try_gemm(c, inputs, got, failed);
  } else {
    try_all(c, inputs, got);
  }
  return index;
}

int Hypotheses::add_known(const Tap& tap, Cause cause) {
  classes_.push_back({.name = std::string(tap.name), .known = std::move(cause)});
  return static_cast<int>(classes_.size()) - 1;
}

Cause Hypotheses::cause(int index) const {
  const Class& c = classes_[static_cast<std::size_t>(index)];
  if (c.sites == 0) return c.known;
  std::vector<Candidate> by_rank = c.candidates;
  std::stable_sort(by_rank.begin(), by_rank.end(), [](const Candidate& a, const Candidate& b) {
    const auto rank = [](const Candidate& k) { return k.worst > 1 ? 2 : k.is_noise ? 1 : 0; };
    return rank(a) != rank(b) ? rank(a) < rank(b) : a.worst < b.worst;
  });
  const std::string sites = std::to_string(c.sites) + (c.sites == 1 ? " site" : " sites");
  if (!by_rank.empty() && by_rank[0].worst <= 1) {
    return {std::string(by_rank[0].cause), "the variant reproduces the path to " +
                                               ratio_text(by_rank[0].worst) +
                                               " of the tolerance at " + sites};
  }
  Cause unknown;
  unknown.evidence = "none of " + std::to_string(by_rank.size()) + " variants fits at " + sites;
  for (std::size_t i = 0; i < std::min<std::size_t>(3, by_rank.size()); ++i) {
    unknown.evidence += (i == 0 ? "; nearest: " : ", ") + std::string(by_rank[i].cause) + " (" +
                        ratio_text(by_rank[i].worst) + ")";
  }
  return unknown;
}

}  // namespace qwen::crosscheck
