#include "core/crosscheck/shadow.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <set>

#include "core/crosscheck/rounded.h"
#include "core/error.h"

namespace qwen::crosscheck {
namespace {

// The same op of the model, on tensors of the same types and shapes.
bool same_form(const Op& op, const Tap& tap, const Node& node) {
  if (node.op.index() != op.index() || node.tap.name != tap.name || node.tap.layer != tap.layer) {
    return false;
  }
  Op a = op;
  Op b = node.op;
  const Operands theirs = operands(a);
  const Operands ours = operands(b);
  return std::equal(
      theirs.begin(), theirs.end(), ours.begin(), [](const Operand& x, const Operand& y) {
        return x.tensor->dtype == y.tensor->dtype && x.tensor->shape == y.tensor->shape;
      });
}

bool all_poison(const Tensor& t, const std::vector<std::int64_t>& elements) {
  return t.dtype == DType::kF32 &&
         std::all_of(elements.begin(), elements.end(), [&](std::int64_t i) {
           return std::bit_cast<std::uint32_t>(t.f32()[i]) == kPoison;
         });
}

}  // namespace

std::size_t Evidence::output() const {
  std::size_t i = 0;
  while (judgements[i].output != divergence.output) ++i;
  return i;
}

void Shadow::begin(const Plan& oracle_plan, std::span<const TokenInput> tokens) {
  plan_ = oracle_plan;
  tokens_.assign(tokens.begin(), tokens.end());
  rows_.clear();
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].wants_logits) rows_.push_back(i);
  }
  log_.begin({tokens_, rows_});
  next_ = 0;
  ledgers_.clear();
  check_step();
}

// The two sides use the same code to set a step up, and are compared with each other: so one of
// them is compared with what was asked for, too.
void Shadow::check_step() const {
  const auto require = [](bool holds, std::string_view what) {
    if (holds) return;
    throw Error({.code = "wrong_step",
                 .message = "the step's " + std::string(what) + " are not those of its tokens"});
  };
  for (const Node& node : plan_) {
    const bool by_rows = std::holds_alternative<Sample>(node.op);
    Op op = node.op;
    for (const Operand& operand : operands(op)) {
      if (!is_given(operand) || operand.name == "params") continue;
      const std::int32_t* values = operand.tensor->i32();
      const std::int64_t n = operand.tensor->size();
      if (operand.name == "pages") {
        std::set<std::int32_t> owned;
        for (std::int64_t i = 0; i < n; ++i) {
          require(values[i] < 0 || owned.insert(values[i]).second, "pages");
        }
        continue;
      }
      const bool is_row = operand.name == "rows";
      require(n == static_cast<std::int64_t>(by_rows || is_row ? rows_.size() : tokens_.size()),
              operand.name);
      for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        const TokenInput& t = tokens_[by_rows ? rows_[i] : is_row ? 0 : i];
        const std::int32_t want = is_row                  ? static_cast<std::int32_t>(rows_[i])
                                  : operand.name == "ids" ? t.id
                                  : operand.name == "pos" ? t.pos + (by_rows ? 1 : 0)
                                                          : t.seq;
        require(values[i] == want, operand.name);
      }
    }
  }
}

void Shadow::require_same(const Op& op, const Tap& tap) const {
  if (next_ == plan_.size() || !same_form(op, tap, plan_[next_])) {
    throw Error({.code = "plans_differ",
                 .message = "the path runs " + std::string(name(op)) + " " + std::string(tap.name) +
                            ", the oracle something else"});
  }
}

void Shadow::before(const Op& op, const Tap& tap) {
  require_same(op, tap);
  scratch_.reset();
  arrivals_.reset();
  bring_inputs(op);
  inputs_read_ = read_;
  poison_outputs(op);
}

// What the path computed is read from it; what it was given (ids, positions, pages) it must have
// right; weights, tables and the ledger are the oracle's own.
void Shadow::bring_inputs(const Op& path_op) {
  Op theirs = path_op;
  inputs_ = plan_[next_].op;
  const Operands from = operands(theirs);
  const Operands to = operands(inputs_);
  given_.clear();
  made_.clear();
  for (std::size_t i = 0; i < to.size(); ++i) {
    if (is_cache(to[i])) continue;
    if (to[i].access == Access::kConstant) {
      adopt_constant(*to[i].tensor);
      continue;
    }
    if (is_given(to[i])) {
      given_.push_back({i, read_later(*from[i].tensor)});
      continue;
    }
    const bool is_output = to[i].access == Access::kWrite;
    *to[i].tensor = is_output ? scratch_.take(to[i].tensor->dtype, to[i].tensor->dims())
                              : read_later(*from[i].tensor);
    if (!is_output) made_.push_back({i, *to[i].tensor});
  }
}

void Shadow::adopt_constant(Tensor& own) const {
  if (wrong_ == nullptr) return;
  for (const WrongConstant& wrong : *wrong_) {
    if (wrong.own != own.data) continue;
    own.data = const_cast<std::byte*>(wrong.theirs.data());  // constants are only read
    return;
  }
}

void Shadow::compare_given(const Operand& ours, const Tensor& got, const Tap& tap) {
  ++result_.n_checks;
  result_.n_elements += got.size();
  if (detail_) log_.add_bits(tap, ours.name, *ours.tensor, got);
  if (std::memcmp(got.data, ours.tensor->data, got.bytes()) == 0) return;
  Judgement j = compare_bits(*ours.tensor, got);
  j.output = ours.name;
  diverges(j, inputs_, tap, got);
  causes_.push_back(
      hypotheses_.add_known(tap, {"the path was given other " + std::string(ours.name),
                                  "the tensor that the op reads differs from the step's own"}));
}

void Shadow::compare_left(const Operand& theirs, const Tensor& got, const Tap& tap) {
  const Tensor left = hand_over_.left(*theirs.tensor);
  if (left.empty()) return;
  Judgement j = compare_bits(left, got);
  if (j.verdict != Verdict::kFail) return;
  j.output = theirs.name;
  diverges(j, inputs_, tap, got);
  causes_.push_back(
      hypotheses_.add_known(tap, {"another op wrote to what this one reads",
                                  "it was right after the op that made it, and differs here"}));
  hand_over_.wrote(*theirs.tensor, got);
}

void Shadow::poison_outputs(const Op& path_op) {
  Op op = path_op;
  for (const Operand& operand : operands(op)) {
    if (operand.access != Access::kWrite || operand.tensor->dtype != DType::kF32) continue;
    fill(sides_.path, *operand.tensor, kPoison);
  }
}

std::vector<Tensor> Shadow::read_outputs(const Op& path_op) {
  Op theirs = path_op;
  std::vector<Tensor> got;
  for (const Tensor& t : written(theirs)) {
    got.push_back(read_later(t));
  }
  return got;
}

Tensor Shadow::read_later(const Tensor& theirs) {
  const Tensor copy = arrivals_.take(theirs.dtype, theirs.dims());
  if (copy.size() > 0) read_ = sides_.path.read_later(copy.data, theirs);
  return copy;
}

void Shadow::await_reads() {
  if (read_) sides_.path.wait(*read_);
  read_.reset();
}

void Shadow::after(const Op& op, const Tap& tap) {
  const std::vector<Tensor> got = read_outputs(op);
  if (inputs_read_) sides_.path.wait(*inputs_read_);
  const Operands own = operands(inputs_);
  for (const Brought& given : given_) compare_given(own[given.operand], given.got, tap);
  Op path_op = op;
  const Operands theirs = operands(path_op);
  for (const Brought& made : made_) compare_left(theirs[made.operand], made.got, tap);
  judge_outputs(op, tap, got);
  if (const auto* write = std::get_if<KvWrite>(&op)) {
    // The ledger goes on as the path has it: a wrong write is reported once, and what is read from
    // it is judged by what is there.
    const auto& ours = std::get<KvWrite>(plan_[next_].op);
    std::memcpy(ours.k_cache.data, got[0].data, got[0].bytes());
    std::memcpy(ours.v_cache.data, got[1].data, got[1].bytes());
    ledgers_.push_back({tap, *write, ours});
  } else {
    const std::vector<Tensor> where = written(path_op);
    for (std::size_t i = 0; i < got.size(); ++i) hand_over_.wrote(where[i], got[i]);
  }
  ++next_;
}

void Shadow::judge_outputs(const Op& path_op, const Tap& tap, const std::vector<Tensor>& got) {
  const Contract path_contract = sides_.path.contract(path_op);
  const Rounded repeated = rounded(inputs_, path_contract, sides_.host, scratch_);
  const Contract& contract = repeated.contract;
  const auto exact_run = [&](Backend& backend) {
    Op op = with_own_outputs(repeated.op, scratch_);
    backend(op);
    return written(op);
  };
  std::vector<Tensor> expected = exact_run(sides_.oracle);
  await_reads();  // until now the path may have been at work, too
  std::vector<Contract> contracts = {contract, sides_.oracle.contract(repeated.op)};
  const JudgeOptions options{
      .by_row = detail_,
      .known_worst = std::min(nearness(tap.name, "out").ratio, result_.worst.element.ratio()),
      .host = &sides_.host,
      .sample = static_cast<std::uint64_t>(result_.n_checks) * 64};
  std::vector<Judgement> all = judge(repeated.op, expected, got, contracts, options);
  const auto failed = [](const Judgement& j) { return j.verdict == Verdict::kFail; };
  if (std::any_of(all.begin(), all.end(), failed) && &sides_.oracle != &sides_.reference) {
    expected = exact_run(sides_.reference);
    contracts.pop_back();
    all = judge(repeated.op, expected, got, contracts, options);
  }
  const std::size_t n_before = result_.divergences.size();
  int cause = -1;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Judgement& j = all[i];
    ++result_.n_checks;
    result_.n_elements += j.n_elements;
    if (detail_) keep(j, tap, contract, expected[i], got[i]);
    if (j.verdict == Verdict::kUnsound) {
      ++result_.n_unsound;
      note_unsound(result_.unsound_outputs, tap, j, tokens_.front());
    }
    Nearness& near = nearness(tap.name, j.output);
    near.ratio = std::max(near.ratio, j.worst.ratio());
    near.n_elements += j.n_elements;
    if (!failed(j)) {
      if (j.worst.ratio() > result_.worst.element.ratio()) {
        result_.worst = {tap, j.output, j.worst};
      }
      continue;
    }
    diverges(j, inputs_, tap, got[i]);
    if (cause < 0) {
      cause = all_poison(got[i], j.failed)
                  ? hypotheses_.add_known(
                        tap, {"the output is not written, or read before it is",
                              "the elements still hold what was put there before the op"})
                  : hypotheses_.add_site({inputs_, path_op, tap, got, i, j.failed});
    }
    causes_.push_back(cause);
  }
  if (keep_ && result_.divergences.size() > n_before && kept_.insert(tap.name).second) {
    // Whoever runs the op again rounds to integers again, and integers of rounded values are
    // others.
    contracts.front().int8_fine_from = path_contract.int8_fine_from;
    keep_({path_contract.int8_fine_from > 0 ? inputs_ : repeated.op, got, contracts, all,
           result_.divergences[n_before]});
  }
}

Nearness& Shadow::nearness(std::string_view tap, std::string_view output) {
  const auto same = [&](const Nearness& n) { return n.tap == tap && n.output == output; };
  const auto at = std::find_if(nearness_.begin(), nearness_.end(), same);
  return at != nearness_.end() ? *at : nearness_.emplace_back(Nearness{tap, output});
}

void Shadow::keep(const Judgement& judgement, const Tap& tap, const Contract& contract,
                  const Tensor& expected, const Tensor& got) {
  if (const auto* op = std::get_if<KvWrite>(&inputs_)) {
    log_.add_cache(tap, judgement.output, *op, expected, got);
  } else if (is_bit_exact(inputs_)) {
    log_.add_bits(tap, judgement.output, expected, got);
  } else {
    log_.add(tap, judgement, contract, got);
  }
}

void Shadow::diverges(const Judgement& judgement, const Op& op, const Tap& tap,
                      const Tensor& output) {
  result_.divergences.push_back(divergence_of(judgement, op, tap, output, tokens_));
  if (found_ && result_.divergences.size() == 1) found_(result_.divergences.front());
}

void Shadow::end() {
  if (next_ != plan_.size()) {
    throw Error({.code = "plans_differ", .message = "the path ran fewer ops than the oracle"});
  }
  // Whatever wrote to a layer's cache after its KvWrite.
  for (const Ledger& layer : ledgers_) {
    arrivals_.reset();
    const std::vector<Tensor> got = read_outputs(layer.theirs);
    await_reads();
    const std::vector<Judgement> all =
        judge(layer.ours, {layer.ours.k_cache, layer.ours.v_cache}, got, {});
    for (std::size_t i = 0; i < all.size(); ++i) {
      ++result_.n_checks;
      result_.n_elements += all[i].n_elements;
      if (detail_) {
        const Tensor& ours = i == 0 ? layer.ours.k_cache : layer.ours.v_cache;
        log_.add_cache({"kv_ledger", layer.tap.layer}, all[i].output, layer.ours, ours, got[i]);
      }
      if (all[i].verdict != Verdict::kFail) continue;
      diverges(all[i], layer.ours, layer.tap, got[i]);
      causes_.push_back(hypotheses_.add_known(
          layer.tap, {"another op wrote to this layer's cache",
                      "it was right after the layer's own write and differs at the step's end"}));
      std::memcpy((i == 0 ? layer.ours.k_cache : layer.ours.v_cache).data, got[i].data,
                  got[i].bytes());
    }
  }
}

ShadowResult Shadow::result() const {
  ShadowResult result = result_;
  std::copy_if(nearness_.begin(), nearness_.end(), std::back_inserter(result.loose),
               [](const Nearness& n) { return n.loose(); });
  result.judged = log_.judged();
  result.checks = log_.checks();
  for (std::size_t i = 0; i < causes_.size(); ++i) {
    result.divergences[i].cause = hypotheses_.cause(causes_[i]);
  }
  return result;
}

}  // namespace qwen::crosscheck
