// Session: a model, a cache and scratch memory, sized once. It runs steps: any mix of tokens of any
// of its sequences, prefill and decode alike.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
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
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Runs one step. Within a sequence the positions must follow on what is cached; keys and values
  // at those positions are replaced. Returns the logits (n_rows, n_vocab), one row for each token
  // that wants them, in order, in backend memory, valid until the next step. Throws Error.
  Tensor step(std::span<const TokenInput> tokens);

  // Runs `ids` as positions [first_pos, ...) of `seq` in steps of max_step_tokens. Logits of the
  // last token only.
  Tensor prefill(std::int32_t seq, std::span<const std::int32_t> ids, std::int32_t first_pos = 0);

  // How tokens of `seq` are chosen from now on.
  void set_sampling(std::int32_t seq, const SampleParams& params);
  // The tokens that have occurred in `seq` (repeat penalty). Sampled tokens are added by
  // themselves.
  void set_seen(std::int32_t seq, std::span<const std::int32_t> ids);

  // Choosing tokens, and going on with them. What is queued runs in order, ahead of the caller:
  //   prefill(...); queue_sample();
  //   loop: queue_decode() up to backend().queue_depth() times ahead; take();
  // A step(), prefill(), reset() or change of sampling forgets what was not taken.
  //
  // Queues the choice of a token from each logits row of the last step.
  void queue_sample();
  // Queues one step with the tokens last chosen as its input, and the choice that follows on it.
  // Throws Error (Exit::kContext) if a sequence has no room.
  void queue_decode();
  // Choices queued and not yet taken.
  int n_queued() const { return static_cast<int>(queue_.size()); }
  // Waits for the oldest choice, one id for each row. Throws Error (code "not_finite", naming the
  // first layer and op whose output is not finite) if the logit of a chosen token is not finite.
  std::vector<std::int32_t> take();
  // queue_sample() and take() of it.
  std::vector<std::int32_t> sample();

  // Forgets a sequence.
  void reset(std::int32_t seq);

  const Model& model() const { return model_; }
  Backend& backend() { return backend_; }
  const KvCache& kv() const { return kv_; }
  const SessionOptions& options() const { return options_; }

 private:
  // A choice that is under way.
  struct Choice {
    std::byte* result;   // n_rows ids and from max_step_rows on their logits, once `read` is done
    std::uint64_t read;  // of Backend::read_later
    std::vector<TokenInput>
        input;     // of the step it was made from; ids of queued steps are not known yet
    bool follows;  // the ids of `input` are those of the choice before
  };
  // A recorded decode step of n rows: Advance, the forward pass, Sample.
  struct Decode {
    Plan plan;
    std::unique_ptr<Program> program;
  };

  void require_id(std::int32_t id) const;
  Step bind(std::int64_t n_tokens, std::int64_t n_rows, bool decode) const;
  Sample sample_op(const Tensor& logits) const;
  const Decode& decode_program(std::int64_t n_rows);
  void queue_result(std::vector<TokenInput> input, bool follows);
  void drain();
  [[noreturn]] void fail_not_finite(const std::vector<TokenInput>& input);

  const Model& model_;
  Backend& backend_;
  SessionOptions options_;
  KvCache kv_;
  Buffer inputs_memory_;
  Tensor ids_, pos_, seq_, rows_;  // (max_step_tokens), rows_ (max_step_rows)
  Tensor row_seq_, row_pos_;       // (max_step_rows)
  Tensor chosen_;                  // (2, max_step_rows) I32: ids; bits of their logits
  Tensor params_;                  // (n_seqs, 8)
  Tensor seen_;                    // (n_seqs, n_vocab)
  Buffer scratch_;
  Arena arena_;
  Tensor logits_;                        // of the last step
  std::vector<TokenInput> last_tokens_;  // of the last step, whose logits are wanted or not
  std::map<std::int64_t, Decode> decode_programs_;  // by rows
  Buffer results_memory_;                           // host: kRing results of chosen_'s size
  std::deque<Choice> queue_;
  std::vector<TokenInput> last_input_;    // of the choice last taken
  std::vector<std::int32_t> last_taken_;  // and its ids
  std::size_t next_result_ = 0;
};

}  // namespace qwen
