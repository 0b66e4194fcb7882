#include "core/session.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "core/error.h"

namespace qwen {
namespace {

// Finds the first op whose output holds a value that is not finite.
class FiniteObserver : public Observer {
 public:
  explicit FiniteObserver(Backend& backend) : backend_(backend) {}

  void after(const Op& op, const Tap& tap) override {
    if (!where.empty() || std::holds_alternative<KvWrite>(op)) return;
    Op copy = op;
    const Tensor out = *operands(copy).front().tensor;
    if (out.dtype != DType::kF32) return;
    std::vector<float> values(out.size());
    backend_.read(values.data(), out);
    if (std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) return;
    where = std::string(tap.name);
    if (tap.layer >= 0) where = "layer " + std::to_string(tap.layer) + " " + where;
  }

  std::string where;

 private:
  Backend& backend_;
};

// Results under way at once: more than any backend's queue_depth() needs.
constexpr std::size_t kRing = 8;

void require(bool holds, const std::string& what) {
  if (!holds) throw Error({.exit = Exit::kFailed, .code = "invalid_step", .message = what});
}

std::int64_t n_seqs_of(std::span<const TokenInput> tokens) {
  std::set<std::int32_t> seqs;
  for (const TokenInput& t : tokens) seqs.insert(t.seq);
  return static_cast<std::int64_t>(seqs.size());
}

KvCacheShape cache_shape(const ModelShape& m, const SessionOptions& o) {
  return {m.n_layers, m.n_kv_heads, m.head_dim, o.n_seqs, o.ctx, o.kv_dtype};
}

}  // namespace

Session::Session(const Model& model, Backend& backend, const SessionOptions& options)
    : model_(model),
      backend_(backend),
      options_(options),
      kv_(backend, cache_shape(model.shape(), options), options.poison),
      arena_(nullptr, 0) {
  const std::int64_t n_layers = model.shape().n_layers;
  options_.max_step_tokens =
      std::clamp<std::int64_t>(options.max_step_tokens, 1, options.ctx * options.n_seqs);
  options_.max_step_rows = std::min(options.max_step_rows, options_.max_step_tokens);
  options_.n_layers = options.n_layers < 0 ? n_layers : std::min(options.n_layers, n_layers);

  // Two passes over the same list: the first finds the size, the second hands out the memory.
  const auto take_inputs = [&](Arena arena) {
    for (Tensor* t : {&ids_, &pos_, &seq_})
      *t = arena.take(DType::kI32, {options_.max_step_tokens});
    for (Tensor* t : {&rows_, &row_seq_, &row_pos_}) {
      *t = arena.take(DType::kI32, {options_.max_step_rows});
    }
    chosen_ = arena.take(DType::kI32, {2, options_.max_step_rows});
    params_ = arena.take(DType::kI32, {options_.n_seqs, 8});
    seen_ = arena.take(DType::kI8, {options_.n_seqs, model.shape().n_vocab});
    return arena.used();
  };
  const std::size_t inputs_bytes = take_inputs(Arena::measuring());
  inputs_memory_ = backend.allocate(inputs_bytes);
  take_inputs(Arena(inputs_memory_.get(), inputs_bytes));
  for (std::int32_t s = 0; s < options_.n_seqs; ++s) {
    set_sampling(s, {});
    reset(s);
  }

  Arena measure = Arena::measuring();
  Plan plan;  // recorded, not run
  {
    const RecordingScope recording(backend, plan);
    const Tensor logits =
        model.forward(backend, bind(options_.max_step_tokens, options_.max_step_rows, false), kv_,
                      measure, options_.n_layers);
    backend(sample_op(logits));
  }
  backend.reserve(plan);
  scratch_ = backend.allocate(measure.used());
  arena_ = Arena(scratch_.get(), measure.used());
  results_memory_ = backend.allocate_host(kRing * chosen_.bytes());
}

Session::~Session() {
  try {
    drain();  // what is queued writes to memory of this session
  } catch (const Error&) {
    // The device has failed: nothing is under way any more, and whoever waited has been told.
  }
}

Step Session::bind(std::int64_t n_tokens, std::int64_t n_rows, bool decode) const {
  return {ids_.slice(0, n_tokens), pos_.slice(0, n_tokens), seq_.slice(0, n_tokens),
          rows_.slice(0, n_rows), decode};
}

Tensor Session::step(std::span<const TokenInput> tokens) {
  drain();
  const auto n_tokens = static_cast<std::int64_t>(tokens.size());
  require(n_tokens >= 1 && n_tokens <= options_.max_step_tokens,
          "a step of " + std::to_string(n_tokens) + " tokens");
  std::vector<std::int32_t> ids, pos, seq, rows, row_seq, row_pos;
  for (std::int64_t t = 0; t < n_tokens; ++t) {
    const TokenInput& in = tokens[t];
    require_id(in.id);
    require(in.seq >= 0 && in.seq < options_.n_seqs,
            "sequence " + std::to_string(in.seq) + " does not exist");
    require(in.pos >= 0, "a negative position");
    kv_.reserve(in.seq, std::int64_t{in.pos} + 1);
    ids.push_back(in.id);
    pos.push_back(in.pos);
    seq.push_back(in.seq);
    if (!in.wants_logits) continue;
    rows.push_back(static_cast<std::int32_t>(t));
    row_seq.push_back(in.seq);
    row_pos.push_back(in.pos + 1);
  }
  const auto n_rows = static_cast<std::int64_t>(rows.size());
  require(n_rows <= options_.max_step_rows, std::to_string(n_rows) + " logits rows in one step");

  const auto upload = [&](const Tensor& to, const std::vector<std::int32_t>& from) {
    backend_.write(to.slice(0, static_cast<std::int64_t>(from.size())), from.data());
  };
  upload(ids_, ids);
  upload(pos_, pos);
  upload(seq_, seq);
  upload(rows_, rows);
  upload(row_seq_, row_seq);
  upload(row_pos_, row_pos);
  last_tokens_.assign(tokens.begin(), tokens.end());
  const bool decode = n_tokens == n_rows && n_seqs_of(tokens) == n_tokens;
  arena_.reset();
  Plan plan;
  {
    const RecordingScope recording(backend_, plan);
    logits_ =
        model_.forward(backend_, bind(n_tokens, n_rows, decode), kv_, arena_, options_.n_layers);
  }
  backend_.execute(plan);
  model_.check_weights();
  return logits_;
}

Tensor Session::prefill(std::int32_t seq, std::span<const std::int32_t> ids,
                        std::int32_t first_pos) {
  std::vector<TokenInput> tokens;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    tokens.push_back({ids[i], first_pos + static_cast<std::int32_t>(i), seq, i + 1 == ids.size()});
    if (static_cast<std::int64_t>(tokens.size()) == options_.max_step_tokens ||
        i + 1 == ids.size()) {
      step(tokens);
      tokens.clear();
    }
  }
  return logits_;
}

void Session::set_sampling(std::int32_t seq, const SampleParams& params) {
  drain();
  backend_.write(params_.slice(seq, seq + 1), &params);
}

void Session::set_seen(std::int32_t seq, std::span<const std::int32_t> ids) {
  drain();
  std::vector<std::int8_t> seen(model_.shape().n_vocab);
  for (const std::int32_t id : ids) {
    require_id(id);
    seen[id] = 1;
  }
  backend_.write(seen_.slice(seq, seq + 1), seen.data());
}

Sample Session::sample_op(const Tensor& logits) const {
  const std::int64_t n_rows = logits.shape[0];
  const Tensor ids = chosen_.slice(0, 1).reshape({options_.max_step_rows});
  const Tensor values = chosen_.slice(1, 2).reshape({options_.max_step_rows});
  return {ids.slice(0, n_rows),
          Tensor(values.data, DType::kF32, {n_rows}),
          seen_,
          logits,
          row_seq_.slice(0, n_rows),
          row_pos_.slice(0, n_rows),
          params_};
}

void Session::queue_result(std::vector<TokenInput> input, bool follows) {
  std::byte* result = results_memory_.get() + next_result_ * chosen_.bytes();
  next_result_ = (next_result_ + 1) % kRing;
  const std::uint64_t read = backend_.read_later(result, chosen_);
  queue_.push_back({result, read, std::move(input), follows});
}

void Session::queue_sample() {
  drain();
  require(!logits_.empty() && logits_.shape[0] > 0, "no step with logits has been run");
  backend_(sample_op(logits_), {"token"});
  queue_result(last_tokens_, false);
}

void Session::queue_decode() {
  require(queue_.size() < kRing, "too many steps queued");
  // The rows of the choice before, each one position on.
  const std::vector<TokenInput>& before = queue_.empty() ? last_input_ : queue_.back().input;
  std::vector<TokenInput> input;
  for (const TokenInput& row : before) {
    if (row.wants_logits) input.push_back({0, row.pos + 1, row.seq, true});
  }
  require(!input.empty(), "no token has been chosen");
  for (const TokenInput& row : input) kv_.reserve(row.seq, std::int64_t{row.pos} + 1);
  const Decode& decode = decode_program(static_cast<std::int64_t>(input.size()));
  if (backend_.observed()) {
    backend_.replay(decode.plan);
  } else {
    decode.program->run();
  }
  // A choice was made from them already; another one would not know where the rows are by now.
  logits_ = {};
  queue_result(std::move(input), true);
}

const Session::Decode& Session::decode_program(std::int64_t n_rows) {
  if (const auto made = decode_programs_.find(n_rows); made != decode_programs_.end()) {
    return made->second;
  }
  Decode decode;
  const Step step = bind(n_rows, n_rows, true);
  arena_.reset();
  {
    const RecordingScope recording(backend_, decode.plan);
    const Sample sample = sample_op(Tensor(nullptr, DType::kF32, {n_rows, model_.shape().n_vocab}));
    backend_(Advance{step.ids, step.pos, step.seq, step.rows, sample.pos, sample.out, sample.seq},
             {"advance"});
    const Tensor logits = model_.forward(backend_, step, kv_, arena_, options_.n_layers);
    backend_(sample_op(logits), {"token"});
  }
  decode.program = backend_.compile(decode.plan);
  return decode_programs_.emplace(n_rows, std::move(decode)).first->second;
}

std::vector<std::int32_t> Session::take() {
  require(!queue_.empty(), "no token is on its way");
  Choice choice = std::move(queue_.front());
  queue_.pop_front();
  backend_.wait(choice.read);
  model_.check_weights();
  const auto is_row = [](const TokenInput& t) { return t.wants_logits; };
  const auto n_rows = std::count_if(choice.input.begin(), choice.input.end(), is_row);
  std::vector<std::int32_t> ids(n_rows);
  std::vector<float> logits(n_rows);
  std::memcpy(ids.data(), choice.result, ids.size() * sizeof(std::int32_t));
  std::memcpy(logits.data(), choice.result + chosen_.row_bytes(), logits.size() * sizeof(float));
  if (choice.follows) {
    for (std::size_t r = 0; r < ids.size(); ++r) choice.input[r].id = last_taken_[r];
  }
  if (!std::all_of(logits.begin(), logits.end(), [](float v) { return std::isfinite(v); })) {
    fail_not_finite(choice.input);
  }
  last_input_ = std::move(choice.input);
  last_taken_ = ids;
  return ids;
}

std::vector<std::int32_t> Session::sample() {
  queue_sample();
  return take();
}

void Session::drain() {
  if (!queue_.empty()) backend_.wait(queue_.back().read);
  queue_.clear();
  last_input_.clear();
}

void Session::fail_not_finite(const std::vector<TokenInput>& input) {
  // Run the step again, watched: writing the same keys and values twice changes nothing.
  FiniteObserver finder(backend_);
  {
    const ObservingScope observing(backend_, &finder);
    step(std::vector<TokenInput>(input));
  }
  throw Error(
      {.exit = Exit::kFailed,
       .code = "not_finite",
       .message = "the logits are not finite" +
                  (finder.where.empty() ? "" : "; the first such value is in " + finder.where),
       .hint = "the model file is damaged or has an infinite weight"});
}

void Session::require_id(std::int32_t id) const {
  require(id >= 0 && id < model_.shape().n_vocab,
          "token id " + std::to_string(id) + " is not in the vocabulary");
}

void Session::reset(std::int32_t seq) {
  drain();
  kv_.release(seq);
  const std::vector<std::int8_t> none(model_.shape().n_vocab, 0);
  backend_.write(seen_.slice(seq, seq + 1), none.data());
}

}  // namespace qwen
