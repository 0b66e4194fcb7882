#include "core/crosscheck/fused.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "core/kv_layout.h"

namespace qwen::crosscheck {
namespace {

// Operands rounded more coarsely than this are carried through a chain as bounds that say nothing.
constexpr double kFineUnit = 0x1p-20;
// Steps in which a program of the same form is run: captured values show in the second.
constexpr int kProgramRuns = 3;
constexpr std::string_view kDiffers = "differs from its ops";

bool is_fine(const Contract& c) {
  return std::max({c.input_unit, c.weight_unit, c.probability_unit}) < kFineUnit &&
         c.int8_fine_from == 0;
}

Plan part(const Plan& plan, const FusedRun& run) {
  const auto first = plan.begin() + static_cast<std::ptrdiff_t>(run.first);
  return {first, first + static_cast<std::ptrdiff_t>(run.count)};
}

bool holds(const std::vector<Tensor>& tensors, const Tensor& tensor) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const Tensor& t) { return t.data == tensor.data; });
}

// Whether two recordings are the same ops on the same memory.
bool same_memory(const Plan& a, const Plan& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Node& x, const Node& y) {
    Op p = x.op;
    Op q = y.op;
    const Operands mine = operands(p);
    const Operands yours = operands(q);
    return p.index() == q.index() &&
           std::equal(mine.begin(), mine.end(), yours.begin(), yours.end(),
                      [](const Operand& m, const Operand& n) {
                        return m.tensor->data == n.tensor->data &&
                               m.tensor->shape == n.tensor->shape;
                      });
  });
}

Cause differs(const FusedRun& run, const Plan& plan, std::string_view how) {
  return {"the fused " + std::string(plan[run.first].tap.name) + ".." +
              std::string(plan[run.first + run.count - 1].tap.name) + " " + std::string(how),
          "they were run one by one from the same inputs"};
}

}  // namespace

std::vector<Divergence> FusedCheck::step(const Plan& path, const Plan& oracle,
                                         std::span<const TokenInput> tokens) {
  tokens_.assign(tokens.begin(), tokens.end());
  found_.clear();
  std::size_t next = 0;
  const auto run_single = [&](std::size_t until) {
    for (; next < until; ++next) sides_.path(path[next].op, path[next].tap);
  };
  for (const FusedRun& run : sides_.path.fused_runs(path)) {
    run_single(run.first);
    judge_run(run, path, oracle);
    next = run.first + run.count;
  }
  run_single(path.size());
  compare_program(path);
  return std::move(found_);
}

void FusedCheck::judge_run(const FusedRun& run, const Plan& path, const Plan& oracle) {
  scratch_.reset();
  if (run.same_bits) return compare_run(run, path);
  const Plan theirs = part(path, run);
  if (!std::all_of(theirs.begin(), theirs.end(),
                   [&](const Node& n) { return is_fine(sides_.path.contract(n.op)); })) {
    ++result_.n_coarse;
    sides_.path.execute(theirs);
    return;
  }
  // What the run reads goes to the oracle's memory; what it only writes is poisoned on the path.
  std::set<const std::byte*> made;
  for (std::size_t n = 0; n < run.count; ++n) {
    Op path_op = theirs[n].op;
    Op oracle_op = oracle[run.first + n].op;
    const Operands from = operands(path_op);
    const Operands to = operands(oracle_op);
    for (std::size_t i = 0; i < to.size(); ++i) {
      const bool number = to[i].tensor->dtype == DType::kF32 && !is_cache(to[i]);
      if (!number || to[i].access == Access::kConstant) continue;
      const bool first = made.insert(to[i].tensor->data).second;
      if (first && to[i].access != Access::kWrite) {
        sides_.path.read(to[i].tensor->data, *from[i].tensor);
      } else if (first) {
        fill(sides_.path, *from[i].tensor, kPoison);
      }
    }
  }
  sides_.path.execute(theirs);
  ErrorChain path_errors(norms_);
  ErrorChain host_errors(norms_);
  const Plan ours = expand(run, oracle, path_errors, host_errors);
  ++result_.n_runs;
  const auto bounds = [&](const Tensor& t) {
    std::vector<double> sum = path_errors.of(t);
    const std::vector<double>& more = host_errors.of(t);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += more[i];
    return sum;
  };
  // The last op that writes a tensor leaves what the run must keep.
  std::set<const std::byte*> judged;
  for (std::size_t n = run.count; n-- > 0;) {
    const Node& node = ours[n];
    Op path_op = theirs[n].op;
    Op oracle_op = node.op;
    if (const auto* write = std::get_if<KvWrite>(&oracle_op)) {
      const auto& made_of = std::get<KvWrite>(oracle[run.first + n].op);
      compare_cache(std::get<KvWrite>(path_op), *write, node, run, path, bounds(made_of.k),
                    bounds(made_of.v));
      continue;
    }
    const Tensor their_out = written(path_op).front();
    const Tensor our_out = written(oracle_op).front();
    if (!judged.insert(our_out.data).second || holds(run.elided, their_out)) continue;
    compare(their_out, our_out, bounds(our_out), node, run, path);
  }
}

void FusedCheck::compare_run(const FusedRun& run, const Plan& path) {
  struct Written {
    const Node& node;
    Tensor theirs;
    Tensor before;  // a copy; empty if the run only writes it
    Tensor expected = {};
  };
  const Plan nodes = part(path, run);
  std::vector<Written> all;
  for (const Node& node : nodes) {
    Op op = node.op;
    for (const Operand& operand : operands(op)) {
      const Tensor& t = *operand.tensor;
      if (!writes(operand.access) || holds(run.elided, t)) continue;
      const bool is_read = operand.access == Access::kReadWrite || t.dtype != DType::kF32;
      all.push_back({node, t, is_read ? copied(t) : Tensor()});
    }
  }
  // What is not written must show, and not be what the step before left.
  const auto prepare = [&] {
    for (const Written& w : all) {
      if (w.before.empty()) fill(sides_.path, w.theirs, kPoison);
      if (!w.before.empty()) sides_.path.write(w.theirs, w.before.data);
    }
  };
  prepare();
  for (const Node& node : nodes) sides_.path(node.op, node.tap);
  for (Written& w : all) w.expected = copied(w.theirs);
  prepare();
  sides_.path.execute(nodes);
  ++result_.n_runs;
  for (const Written& w : all) {
    const Tensor got = copied(w.theirs);
    Judgement j = compare_bits(w.expected, got);
    j.output = "out";
    result_.n_elements += j.n_elements;
    if (j.verdict == Verdict::kFail) diverges(j, w.node, got, differs(run, path, kDiffers));
  }
}

Plan FusedCheck::expand(const FusedRun& run, const Plan& oracle, ErrorChain& path_errors,
                        ErrorChain& host_errors) {
  Plan ops = part(oracle, run);
  for (Node& node : ops) {
    const Op before = with_own_outputs(node.op, scratch_);
    if (std::holds_alternative<KvWrite>(node.op)) {
      node.op = before;
      sides_.host(node.op, node.tap);
      continue;
    }
    sides_.host(node.op, node.tap);
    path_errors.follow(node.op, before, sides_.path.contract(node.op));
    host_errors.follow(node.op, before, sides_.host.contract(node.op));
  }
  return ops;
}

void FusedCheck::compare(const Tensor& theirs, const Tensor& ours, std::vector<double> bounds,
                         const Node& node, const FusedRun& run, const Plan& path) {
  const Tensor got = copied(theirs);
  Judgement j = judge(ours, got, std::move(bounds));
  j.output = "out";
  const bool is_wide = j.verdict == Verdict::kUnsound;
  result_.n_wide += is_wide;
  result_.n_elements += is_wide ? 0 : j.n_elements;
  if (j.verdict != Verdict::kFail) return;
  diverges(j, node, got, differs(run, path, kDiffers));
}

// A stored value is rounded on both sides, from values that differ by the bounds of k and v.
void FusedCheck::compare_cache(const KvWrite& theirs, const KvWrite& ours, const Node& node,
                               const FusedRun& run, const Plan& path,
                               const std::vector<double>& k_bounds,
                               const std::vector<double>& v_bounds) {
  const KvLayout layout = kv_layout(ours.k_cache, ours.pages);
  const double unit = ours.k_cache.dtype == DType::kF16 ? 0x1p-10 : 0x1p-23;
  const double step = ours.k_cache.dtype == DType::kF16 ? 0x1p-24 : 0;
  const auto side = [&](const Tensor& their_cache, const Tensor& cache, const Tensor& values,
                        const std::vector<double>& bounds) {
    const Tensor got = copied(their_cache);
    const Tensor got_new = scratch_.take(DType::kF32, values.dims());
    const Tensor expected_new = scratch_.take(DType::kF32, values.dims());
    std::vector<double> tolerance;
    for (std::int64_t i = 0; i < values.size(); ++i) {
      const std::int64_t row = i / layout.head_dim;
      const std::int64_t t = row / layout.n_kv_heads;
      const std::int64_t at =
          kv_offset(layout, ours.pages.i32(), ours.seq.i32()[t], row % layout.n_kv_heads,
                    ours.pos.i32()[t], i % layout.head_dim);
      got_new.f32()[i] = cache_value(got, at);
      expected_new.f32()[i] = cache_value(cache, at);
      tolerance.push_back(bounds[static_cast<std::size_t>(i)] +
                          unit * std::abs(double{expected_new.f32()[i]}) + step);
      store_cache_value(got, at, expected_new.f32()[i]);  // so that only the others can differ
    }
    Judgement fresh = judge(expected_new, got_new, std::move(tolerance));
    Judgement others = compare_bits(cache, got);
    const bool is_wide = fresh.verdict == Verdict::kUnsound;
    result_.n_wide += is_wide;
    result_.n_elements += others.n_elements + (is_wide ? 0 : fresh.n_elements);
    fresh.output = others.output = &cache == &ours.k_cache ? "k_cache" : "v_cache";
    if (fresh.verdict == Verdict::kFail) {
      diverges(fresh, node, got_new, differs(run, path, kDiffers));
    }
    if (others.verdict == Verdict::kFail) {
      diverges(others, node, got, differs(run, path, "writes where it must not"));
    }
  };
  side(theirs.k_cache, ours.k_cache, ours.k, k_bounds);
  side(theirs.v_cache, ours.v_cache, ours.v, v_bounds);
}

void FusedCheck::compare_program(const Plan& path) {
  const bool decode = std::all_of(tokens_.begin(), tokens_.end(),
                                  [](const TokenInput& t) { return t.wants_logits; });
  if (!decode || result_.n_programs >= kProgramRuns) return;
  Ready& ready = programs_[static_cast<std::int64_t>(tokens_.size())];
  if (ready.program == nullptr || !same_memory(ready.plan, path)) {
    ready = {path, sides_.path.compile(path)};
  }
  const Tensor logits = output_of(path.back().op);  // or what comes nearest to them
  const Tensor expected = copied(logits);
  ready.program->run();
  const Tensor got = copied(logits);
  ++result_.n_programs;
  result_.n_elements += got.size();
  Judgement j = compare_bits(expected, got);
  if (j.verdict != Verdict::kFail) return;
  j.output = "out";
  diverges(j, path.back(), got,
           {"the program made of the step differs from its launches one by one",
            "the same step, the same inputs: the bits must be the same"});
}

Tensor FusedCheck::copied(const Tensor& theirs) {
  const Tensor copy = scratch_.take(theirs.dtype, theirs.dims());
  sides_.path.read(copy.data, theirs);
  return copy;
}

void FusedCheck::diverges(const Judgement& judgement, const Node& node, const Tensor& output,
                          Cause cause) {
  found_.push_back(divergence_of(judgement, node.op, node.tap, output, tokens_));
  found_.back().cause = std::move(cause);
}

}  // namespace qwen::crosscheck
