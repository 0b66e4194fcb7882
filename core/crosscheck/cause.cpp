#include "core/crosscheck/cause.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "core/crosscheck/judge.h"
#include "core/crosscheck/rounded.h"

namespace qwen::crosscheck {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Elements of a Gemm that a variant is tried on: as many that failed and that passed.
constexpr std::uint64_t kGemmElements = 24;
// What a narrower type adds to the bound of a noise variant: the unit roundoff of F16.
constexpr double kHalfUnit = 0x1p-11;

// Each bound becomes the largest of its token's row: a variant that moves elements moves their
// bounds with them. Those of values that are not finite do not count.
void widen_to_rows(std::vector<double>& bounds, std::int64_t n_rows) {
  const auto n = static_cast<std::ptrdiff_t>(bounds.size()) / n_rows;
  for (std::int64_t r = 0; r < n_rows; ++r) {
    const auto begin = bounds.begin() + r * n;
    double largest = 0;
    for (auto b = begin; b != begin + n; ++b) {
      if (std::isfinite(*b)) largest = std::max(largest, *b);
    }
    std::fill(begin, begin + n, largest);
  }
}

// How the outputs of a variant are compared with the path's.
struct Allowance {
  bool rows = true;   // each element by the largest bound of its row
  bool half = false;  // and by what rounding to F16 adds
};

// Whether so wide bounds would fit anything. Values that are not finite are compared as they are.
bool says_nothing(const Tensor& expected, const std::vector<double>& bounds) {
  double largest = 0;
  std::int64_t n = 0;
  std::int64_t wide = 0;
  for (std::int64_t i = 0; i < expected.size(); ++i) {
    if (std::isfinite(expected.f32()[i])) {
      largest = std::max(largest, std::abs(double{expected.f32()[i]}));
    }
  }
  for (std::int64_t i = 0; i < expected.size(); ++i) {
    if (!std::isfinite(expected.f32()[i])) continue;
    ++n;
    wide += !(bounds[static_cast<std::size_t>(i)] <= largest);
  }
  return 2 * wide > n;
}

double largest_ratio(const Tensor& got, const Tensor& expected, std::vector<double> bounds,
                     const Allowance& allowance) {
  if (allowance.rows) widen_to_rows(bounds, expected.shape[0]);
  if (says_nothing(expected, bounds)) return kInfinity;
  double worst = 0;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const double value = expected.f32()[i];
    const double extra = allowance.half ? kHalfUnit * std::abs(value) : 0;
    const Element e{i, got.f32()[i], value, bounds[static_cast<std::size_t>(i)] + extra};
    worst = std::max(worst, e.ratio());
  }
  return worst;
}

// How far `got` is from what a variant left in `op`, whose inputs were those of `inputs` but for
// what the variant changed.
double distance(const Sides& sides, const Op& inputs, Op& op, const std::vector<Tensor>& got,
                const Allowance& allowance) {
  const std::vector<Tensor> expected = written(op);
  if (is_bit_exact(op)) {
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (std::memcmp(got[i].data, expected[i].data, got[i].bytes()) != 0) return kInfinity;
    }
    return 0;
  }
  Op bounded = op;
  Op before = inputs;
  const Operands to = operands(bounded);
  const Operands from = operands(before);
  for (std::size_t i = 0; i < to.size(); ++i) {
    if (to[i].access == Access::kReadWrite) *to[i].tensor = *from[i].tensor;
  }
  const Tensor lse = expected.size() > 1 ? expected[1] : Tensor();
  Tolerance t = tolerance(bounded, sides.path.contract(op), expected[0], lse);
  double worst = largest_ratio(got[0], expected[0], std::move(t.out), allowance);
  if (expected.size() > 1) {
    worst = std::max(worst, largest_ratio(got[1], lse, std::move(t.lse), allowance));
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
  if (known != c.candidates.end()) {
    known->worst = std::max(known->worst, ratio);
  } else if (std::isfinite(ratio) || c.sites == 1) {
    // One that appears late did not apply at an earlier site.
    c.candidates.push_back({cause, is_noise, c.sites == 1 ? ratio : kInfinity});
  }
}

void Hypotheses::rule_out(Class& c, std::string_view cause) {
  for (Candidate& k : c.candidates) {
    if (k.cause == cause) k.worst = kInfinity;
  }
}

bool Hypotheses::hopeless(const Class& c, std::string_view cause) {
  return std::any_of(c.candidates.begin(), c.candidates.end(),
                     [&](const Candidate& k) { return k.cause == cause && k.worst > kHopeless; });
}

void Hypotheses::try_all(Class& c, const Op& inputs, const std::vector<Tensor>& got) {
  // What would fit the right op as well proves nothing: then only the bare bounds count.
  scratch_.reset();
  Op right = copy_of(inputs, scratch_);
  sides_.reference(right);
  const auto fits_right = [&](const Allowance& a) {
    return distance(sides_, inputs, right, got, a) <= 1;
  };
  const bool rows = !fits_right({.rows = true});
  const bool half = !fits_right({.rows = rows, .half = true});
  for (const auto& variants : {token_variants(), attention_variants()}) {
    for (const Variant& v : variants) {
      if (hopeless(c, v.cause)) continue;
      scratch_.reset();
      Workbench bench{scratch_, sides_.reference};
      Op op = copy_of(inputs, scratch_);
      if (v.run(bench, op)) {
        note(c, v.cause, v.is_noise,
             distance(sides_, inputs, op, got, {.rows = rows, .half = half && v.is_noise}));
      } else {
        rule_out(c, v.cause);
      }
    }
  }
}

void Hypotheses::try_gemm(Class& c, const Op& inputs, const std::vector<Tensor>& got,
                          const std::vector<std::int64_t>& failed) {
  scratch_.reset();
  const Rounded repeated = rounded(inputs, sides_.path.contract(inputs), sides_.host, scratch_);
  const auto& op = std::get<Gemm>(repeated.op);
  const std::int64_t n = op.out.size();
  std::vector<std::int64_t> tried;
  for (std::uint64_t k = 0; k < kGemmElements; ++k) {
    const auto n_failed = static_cast<std::int64_t>(failed.size());
    tried.push_back(failed[static_cast<std::size_t>(scattered(k, n_failed))]);
    tried.push_back(scattered(k, n));
  }
  WeightReader weight(op.weight);
  GemmTolerance bound(op, {repeated.contract}, op.out);
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
      const double tolerance = bound.of(std::abs(s.sum), {.sum = s.size, .weight = weight_sum}) +
                               (v.is_noise ? kHalfUnit * std::abs(s.sum) : 0);
      worst = std::max(worst, Element{i, got[0].f32()[i], s.sum, tolerance}.ratio());
    }
    if (applies) {
      note(c, v.cause, v.is_noise, worst);
    } else {
      rule_out(c, v.cause);
    }
  }
}

void Hypotheses::replay(Class& c, const FailedOp& op) {
  const std::optional<Cause> found = replays_.by_itself(op);
  if (c.sites == 1) {
    c.by_itself = found;
  } else if (!found || !c.by_itself || found->name != c.by_itself->name) {
    c.by_itself.reset();
  }
}

int Hypotheses::add_site(const FailedOp& op) {
  const auto known = std::find_if(classes_.begin(), classes_.end(), [&](const Class& c) {
    return c.name == op.tap.name && c.sites > 0;
  });
  const int index = static_cast<int>(known - classes_.begin());
  if (known == classes_.end()) classes_.push_back({.name = std::string(op.tap.name)});
  Class& c = classes_[static_cast<std::size_t>(index)];
  if (c.sites >= kMaxSites) return index;
  ++c.sites;
  if (c.sites <= kReplayedSites) replay(c, op);
  if (std::holds_alternative<Gemm>(op.inputs)) {
    try_gemm(c, op.inputs, op.got, op.failed);
  } else {
    try_all(c, op.inputs, op.got);
  }
  const bool fits = std::any_of(c.candidates.begin(), c.candidates.end(),
                                [](const Candidate& k) { return k.worst <= 1; });
  if (c.sites == 1 && !fits && !c.by_itself) c.circumstances = replays_.depends_on(op);
  return index;
}

int Hypotheses::add_known(const Tap& tap, Cause cause) {
  classes_.push_back({.name = std::string(tap.name), .known = std::move(cause)});
  return static_cast<int>(classes_.size()) - 1;
}

Cause Hypotheses::cause(int index) const {
  const Class& c = classes_[static_cast<std::size_t>(index)];
  if (c.sites == 0) return c.known;
  if (c.by_itself) return *c.by_itself;
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
  Cause unknown = c.circumstances.value_or(Cause{});
  if (c.circumstances) unknown.evidence += "; ";
  unknown.evidence += "none of " + std::to_string(by_rank.size()) + " variants fits at " + sites;
  for (std::size_t i = 0; i < std::min<std::size_t>(3, by_rank.size()); ++i) {
    if (!std::isfinite(by_rank[i].worst)) break;
    unknown.evidence += (i == 0 ? "; nearest: " : ", ") + std::string(by_rank[i].cause) + " (" +
                        ratio_text(by_rank[i].worst) + ")";
  }
  return unknown;
}

}  // namespace qwen::crosscheck
