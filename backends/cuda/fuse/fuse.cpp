#include "backends/cuda/fuse/fuse.h"

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>

namespace qwen::cuda {
namespace {

bool same(const Tensor& a, const Tensor& b) { return a.data == b.data && a.bytes() == b.bytes(); }

// A group stores its result while other blocks may still read its input: they must not share
// memory.

// The ops of nodes [first, ...) if they have these types, else nullopt.
template <class... Ops>
std::optional<std::tuple<const Ops*...>> match(const Plan& plan, std::size_t first) {
  if (plan.size() - first < sizeof...(Ops)) return std::nullopt;
  const auto ops = [&]<std::size_t... I>(std::index_sequence<I...>) {
    return std::tuple<const Ops*...>{std::get_if<Ops>(&plan[first + I].op)...};
  }
  (std::index_sequence_for<Ops...>());
  const bool all = std::apply([](const auto*... op) { return ((op != nullptr) && ...); }, ops);
  return all ? std::optional(ops) : std::nullopt;
}

bool is_norm_qkv(const Plan& plan, std::size_t first) {
  const auto ops =
      match<RmsNorm, Gemm, Gemm, Gemm, AddBias, AddBias, AddBias, Rope, Rope, KvWrite>(plan, first);
  if (!ops) return false;
  const auto& [norm, q, k, v, q_bias, k_bias, v_bias, rope_q, rope_k, write] = *ops;
  return same(q->x, norm->out) && same(k->x, norm->out) && same(v->x, norm->out) &&
         same(q_bias->x, q->out) && same(k_bias->x, k->out) && same(v_bias->x, v->out) &&
         same(rope_q->x, q->out) && same(rope_k->x, k->out) && same(write->k, k->out) &&
         same(write->v, v->out) && same(rope_q->pos, write->pos) && same(rope_k->pos, write->pos) &&
         same(rope_q->inv_freq, rope_k->inv_freq) && !q->out.overlaps(norm->x);
}

bool is_project_add(const Plan& plan, std::size_t first) {
  const auto ops = match<Gemm, Add>(plan, first);
  if (!ops) return false;
  const auto& [project, add] = *ops;
  return same(add->y, project->out) && !add->x.overlaps(project->x);
}

bool is_feed_forward(const Plan& plan, std::size_t first) {
  const auto ops = match<RmsNorm, Gemm, Gemm, SiluMul, Gemm, Add>(plan, first);
  if (!ops) return false;
  const auto& [norm, gate, up, glu, down, add] = *ops;
  return same(gate->x, norm->out) && same(up->x, norm->out) && same(glu->gate, gate->out) &&
         same(glu->up, up->out) && same(down->x, glu->out) && same(add->y, down->out) &&
         same(add->x, norm->x) && !glu->out.overlaps(norm->x);
}

bool is_norm_project(const Plan& plan, std::size_t first) {
  const auto ops = match<RmsNorm, Gemm>(plan, first);
  if (!ops) return false;
  const auto& [norm, project] = *ops;
  return same(project->x, norm->out) && !project->out.overlaps(norm->x);
}

struct Rule {
  Pattern pattern;
  std::size_t count;
  bool (*matches)(const Plan& plan, std::size_t first);
};

// The longer ones first: the last two begin like the first two.
constexpr std::array<Rule, 4> kRules = {{{Pattern::kNormQkv, 10, is_norm_qkv},
                                         {Pattern::kFeedForward, 6, is_feed_forward},
                                         {Pattern::kProjectAdd, 2, is_project_add},
                                         {Pattern::kNormProject, 2, is_norm_project}}};

// Whether `tensor` is written before it is read from node `first` on, or not touched at all.
bool is_dead(const Plan& plan, std::size_t first, const Tensor& tensor) {
  for (std::size_t n = first; n < plan.size(); ++n) {
    Op op = plan[n].op;
    bool overwritten = false;
    for (const Operand& o : operands(op)) {
      if (!o.tensor->overlaps(tensor)) continue;
      if (o.access != Access::kWrite) return false;
      overwritten |= same(*o.tensor, tensor);
    }
    if (overwritten) return true;
  }
  return true;
}

}  // namespace

std::vector<Tensor> elided(const Plan& plan, const Group& group) {
  const auto out = [&](std::size_t i) {
    Op op = plan[group.first + i].op;
    return *operands(op).front().tensor;
  };
  switch (group.pattern) {
    case Pattern::kNormQkv:
      return {out(0), out(2), out(3)};
    case Pattern::kProjectAdd:
    case Pattern::kNormProject:
      return {out(0)};
    case Pattern::kFeedForward:
      return {out(0), out(1), out(2), out(3), out(4)};
    case Pattern::kSingle:
      break;
  }
  return {};
}

std::vector<Group> fuse(const Plan& plan) {
  std::vector<Group> groups;
  for (std::size_t first = 0; first < plan.size(); first += groups.back().count) {
    Group group{.first = first};
    for (const Rule& rule : kRules) {
      if (!rule.matches(plan, first)) continue;
      const Group candidate{rule.pattern, first, rule.count};
      const std::vector<Tensor> gone = elided(plan, candidate);
      if (!std::all_of(gone.begin(), gone.end(),
                       [&](const Tensor& t) { return is_dead(plan, first + rule.count, t); })) {
        continue;
      }
      group = candidate;
      break;
    }
    groups.push_back(group);
  }
  return groups;
}

}  // namespace qwen::cuda
