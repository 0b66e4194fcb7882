// Model: an architecture with its weights placed on one backend.
#pragma once

#include <memory>
#include <string>

#include "core/arena.h"
#include "core/backend.h"
#include "core/kv_cache.h"
#include "core/model_file.h"

namespace qwen {

// Hyper-parameters that the rest of the engine needs, whatever the architecture.
struct ModelShape {
  std::string arch;
  std::int64_t n_layers = 0;
  std::int64_t dim = 0;
  std::int64_t n_heads = 0;
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t ffn_dim = 0;
  std::int64_t n_vocab = 0;
  std::int64_t context_length = 0;  // trained
  std::int64_t n_params = 0;
};

// The per-token tensors of one step, in backend memory. A step mixes prefill and decode of any
// sequences: each row has its own position and sequence.
struct Step {
  Tensor ids;           // (n_tokens) I32
  Tensor pos;           // (n_tokens) I32
  Tensor seq;           // (n_tokens) I32
  Tensor rows;          // (n_rows) I32: the tokens whose logits are wanted
  bool decode = false;  // every token is of another sequence
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelShape& shape() const = 0;

  // Throws Error if weights that are used in the file's own memory were changed or lost since they
  // were loaded. Cheap enough to be asked for each token.
  virtual void check_weights() const {}

  // Issues the ops of one step to `backend`: writes the step's keys and values to `kv` and returns
  // the logits (n_rows, n_vocab) F32. Scratch and result come from `arena`. Only the first
  // `n_layers` layers are run.
  virtual Tensor forward(Backend& backend, const Step& step, const KvCache& kv, Arena& arena,
                         std::int64_t n_layers) const = 0;
};

// Builds the model that the file's `general.architecture` names, its weights placed on `backend`.
// Every tensor of the file is consumed. `file` and `backend` must outlive the model. Throws Error.
std::unique_ptr<Model> load_model(ModelFile& file, Backend& backend);

}  // namespace qwen
