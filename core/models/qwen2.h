// Qwen2 and Qwen2.5 (dense): the only place that knows this architecture, its metadata keys and its
// tensor names. (Qwen2 technical report, arXiv:2407.10671; Hugging Face Qwen2ForCausalLM)
#pragma once

#include <vector>

#include "core/model.h"

namespace qwen {

class Qwen2 : public Model {
 public:
  // Reads and checks the configuration, takes every weight, and places it on `backend`.
  // `backend` must outlive the model.
  Qwen2(ModelFile& file, Backend& backend);

  const ModelShape& shape() const override { return shape_; }
  void check_weights() const override;
  Tensor forward(Backend& backend, const Step& step, const KvCache& kv, Arena& arena,
                 std::int64_t n_layers) const override;

 private:
  struct Layer {
    Tensor attn_norm;               // (dim)
    Tensor q, k, v;                 // (n_heads * head_dim, dim), (n_kv_heads * head_dim, dim) twice
    Tensor q_bias, k_bias, v_bias;  // (n_heads * head_dim), (n_kv_heads * head_dim) twice
    Tensor k_center;                // (n_kv_heads, head_dim)
    Tensor o;                       // (dim, n_heads * head_dim)
    Tensor ffn_norm;                // (dim)
    Tensor gate, up;                // (ffn_dim, dim)
    Tensor down;                    // (dim, ffn_dim)
  };

  void read_config(const ModelFile& file);
  // A constant (n) F32 in the backend's memory, kept in tables_.
  Tensor place_table(Backend& backend, const std::vector<float>& table);

  // Of weights, in the backend's memory; also if the constructor throws.
  struct Copies {
    explicit Copies(Backend& owner) : backend(owner) {}
    Copies(const Copies&) = delete;
    Copies& operator=(const Copies&) = delete;
    ~Copies() {
      for (const Tensor& copy : tensors) backend.drop_weight(copy);
    }
    Backend& backend;
    std::vector<Tensor> tensors;
  };

  Copies copies_;
  const ModelFile* file_ = nullptr;  // where some weights still lie; null if all were copied
  ModelShape shape_;
  float eps_ = 0;
  float rope_base_ = 0;
  Tensor embed_;  // (n_vocab, dim)
  std::vector<Layer> layers_;
  Tensor output_norm_;          // (dim)
  Tensor head_;                 // (n_vocab, dim); the embedding if the file has no head of its own
  Tensor inv_freq_;             // (head_dim / 2)
  std::vector<Buffer> tables_;  // behind inv_freq_ and the layers' k_center
};

}  // namespace qwen
