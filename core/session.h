// Session: a model, a cache and scratch memory, sized once. It runs steps: any mix of tokens of any
// of its sequences, prefill and decode alike.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model.h"
#include "core/sampler.h"

namespace qwen {

struct SessionOptions {
  std::int64_t ctx = 0;  // positions per sequence
  std::int64_t n_seqs = 1;
  std::int64_t max_step_tokens =
      512;                         // rows of the largest step; a longer prefill is cut into such
  std::int64_t max_step_rows = 1;  // logits rows of the largest step
  DType kv_dtype = DType::kF32;
  std::int64_t n_layers = -1;  // run only the first n layers; -1: all
  bool poison = false;         // unused cache slots hold not-a-number
};

// One row of a step.
struct TokenInput {
  std::int32_t id = 0;
  std::int32_t pos = 0;
  std::int32_t seq = 0;
  bool wants_logits = false;
};

class Session {
 public:
  // `model` and `backend` (the one the model is placed on) must outlive the session. Allocates
  // all memory of tensors; steps allocate only small host vectors. Throws Error
  // (Exit::kOutOfMemory).
  Session(const Model& model, Backend& backend, const SessionOptions& options);

  // Runs one step. Within a sequence the positions must follow on what is cached; keys and values
  // at those positions are replaced. Returns the logits (n_rows, n_vocab), one row for each token
  // that wants them, in order, in backend memory, valid until the next step. Throws Error.
  Tensor step(std::span<const TokenInput> tokens);

  // Runs `ids` as positions [first_pos, ...) of `seq` in steps of max_step_tokens. Logits of the
  // last token only.
  Tensor prefill(std::int32_t seq, std::span<const std::int32_t> ids, std::int32_t first_pos = 0);

  // How tokens of `seq` are chosen from now on.
  void set_sampling(std::int32_t seq, const SampleParams& params);
  // Marks tokens as having occurred in `seq` (repeat penalty). Sampled tokens are marked by
  // themselves.
  void mark_seen(std::int32_t seq, std::span<const std::int32_t> ids);
  // Chooses a token from each logits row of the last step. Throws Error (code "not_finite", naming
  // the first layer and op whose output is not finite) if the logit of a
  // chosen token is not finite.
  std::vector<std::int32_t> sample();

  // Forgets a sequence.
  void reset(std::int32_t seq);

  const Model& model() const { return model_; }
  Backend& backend() { return backend_; }
  const KvCache& kv() const { return kv_; }
  const SessionOptions& options() const { return options_; }

 private:
  void require_id(std::int32_t id) const;
  Step bind(std::int64_t n_tokens, std::int64_t n_rows) const;
  Tensor forward(Arena& arena);
  void check_finite(std::span<const std::int32_t> chosen);

  const Model& model_;
  Backend& backend_;
  SessionOptions options_;
  KvCache kv_;
  Buffer inputs_memory_;
  Tensor ids_, pos_, seq_, rows_;       // (max_step_tokens), rows_ (max_step_rows)
  Tensor sampled_, row_seq_, row_pos_;  // (max_step_rows)
  Tensor params_;                       // (n_seqs, 8)
  Tensor seen_;                         // (n_seqs, n_vocab)
  Buffer scratch_;
  Arena arena_;
  Tensor logits_;                        // of the last step
  std::vector<TokenInput> last_tokens_;  // of the last step
};

}  // namespace qwen
