#include "tools/qwen/trace.h"

#include <variant>
#include <vector>

#include "tools/qwen/candidates.h"
#include "tools/qwen/profile.h"

namespace qwen::cli {
namespace {

constexpr std::size_t kCandidates = 5;

}  // namespace

Trace::Trace(const std::string& path, bool ops, const std::string& model_path)
    : ops_(ops), file_("--trace", path, model_path) {}

void Trace::load(const Json& facts) {
  Json out{{"type", "load"}};
  out.update(facts);
  line(out);
}

void Trace::attach(Backend& backend, const Tokenizer* tokenizer) {
  backend_ = &backend;
  tokenizer_ = tokenizer;
}

void Trace::before(const Op&, const Tap&) {
  if (ops_) op_start_ = std::chrono::steady_clock::now();
}

void Trace::after(const Op& op, const Tap& tap) {
  if (ops_) wait_for(*backend_, op);
  const auto end = std::chrono::steady_clock::now();
  if (ops_) {
    Op copy = op;
    const Tensor out = *operands(copy).front().tensor;
    const auto dims = out.dims();
    line({{"type", "op"},
          {"op", name(op)},
          {"tap", tap.name},
          {"layer", tap.layer < 0 ? Json(nullptr) : Json(tap.layer)},
          {"shape", std::vector<std::int64_t>(dims.begin(), dims.end())},
          {"us", std::chrono::duration<double, std::micro>(end - op_start_).count()}});
  }
  if (const auto* sample = std::get_if<Sample>(&op)) token(*sample);
}

// The logits are those before the repeat penalty and the sampling parameters.
void Trace::token(const Sample& op) {
  const std::int64_t n_rows = op.logits.shape[0];
  std::vector<std::int32_t> chosen(n_rows), pos(n_rows), seq(n_rows);
  backend_->read(chosen.data(), op.out);
  backend_->read(pos.data(), op.pos);
  backend_->read(seq.data(), op.seq);
  std::vector<float> logits(op.logits.cols());
  for (std::int64_t r = 0; r < n_rows; ++r) {
    backend_->read(logits.data(), op.logits.slice(r, r + 1));
    const double lse = log_sum_exp(logits);
    const auto candidate = [&](std::int32_t id) {
      Json out{{"id", id}};
      if (tokenizer_ != nullptr) out["piece"] = std::string(tokenizer_->piece(id));
      out["logit"] = logits[id];
      out["logprob"] = logits[id] - lse;
      return out;
    };
    Json candidates = Json::array();
    for (const std::int32_t id : likeliest(logits, kCandidates)) {
      candidates.push_back(candidate(id));
    }
    Json out{{"type", "token"}, {"seq", seq[r]}, {"pos", pos[r]}};
    out.update(candidate(chosen[r]));
    out["candidates"] = std::move(candidates);
    line(out);
  }
}

void Trace::line(const Json& json) {
  file_.write(json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace qwen::cli
