// The operations a model is made of. An op is a plain value: the tensors it works on (output first)
// and its fixed numbers. What changes per token is a tensor (ids, pos, seq, pages, rows, sampling
// parameters); what never changes is a field. So a recorded list of ops stays valid for every
// token.
//
// Shapes use the vocabulary of tensor.h. All tensors are contiguous. "weight" is a tensor of any
// float or quantised type whose rows are the output features: y[t][r] = sum_c weight[r][c] *
// x[t][c].
#pragma once

#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

#include "core/tensor.h"

namespace qwen {

// kConstant: read, and the same in every step (weights, tables).
enum class Access { kRead, kConstant, kWrite, kReadWrite };
constexpr bool writes(Access access) {
  return access == Access::kWrite || access == Access::kReadWrite;
}

// One tensor operand of an op: a handle to look at it or to rebind it.
struct Operand {
  std::string_view name;
  Tensor* tensor;
  Access access;
};
using Operands = std::vector<Operand>;

// out (n_tokens, dim) = rows `ids` of table.
struct Embed {
  Tensor out;    // (n_tokens, dim) F32
  Tensor table;  // (n_vocab, dim) weight
  Tensor ids;    // (n_tokens) I32, each < n_vocab
  Operands io();
};

// out = x / sqrt(mean(x^2) + eps) * weight, per row. (Zhang & Sennrich 2019, arXiv:1910.07467)
struct RmsNorm {
  Tensor out;     // (n_tokens, dim) F32
  Tensor x;       // (n_tokens, dim) F32
  Tensor weight;  // (dim) F32
  float eps = 0;
  Operands io();
};

// out[t][r] = sum_c weight[r][c] * x[t][c].
struct Gemm {
  Tensor out;     // (n_tokens, out_dim) F32
  Tensor x;       // (n_tokens, in_dim) F32
  Tensor weight;  // (out_dim, in_dim) weight
  // Its output is the logits: a path that rounds x does so more finely here.
  bool is_head = false;
  Operands io();
};

// x[t][c] += bias[c]. An op of its own, so that the projection before the bias can be observed.
struct AddBias {
  Tensor x;     // (n_tokens, out_dim) F32, in place
  Tensor bias;  // (out_dim) F32
  Operands io();
};

// Rotary position embedding over half-split pairs (i, i + head_dim/2), angle pos * inv_freq[i].
// (Su et al. 2021, arXiv:2104.09864; the pairing is that of the Hugging Face Qwen2 implementation)
struct Rope {
  Tensor x;         // (n_tokens, heads, head_dim) F32, in place
  Tensor pos;       // (n_tokens) I32
  Tensor inv_freq;  // (head_dim / 2) F32
  Operands io();
};

// Stores k - k_center and v of a step in the paged cache (kv_layout.h): the difference rounded to
// F32, then to the cache's type. One vector taken from all keys of a head moves all scores of a
// query by the same amount, which a softmax does not see; but what is common to the keys no longer
// costs the digits in which they differ. lse moves by scale * q.k_center with it; who rotates
// cached keys again must add k_center back first.
struct KvWrite {
  Tensor k_cache;   // (n_pages, n_kv_heads, page_tokens, head_dim) F32 or F16
  Tensor v_cache;   // as k_cache
  Tensor k;         // (n_tokens, n_kv_heads, head_dim) F32
  Tensor v;         // as k
  Tensor k_center;  // (n_kv_heads, head_dim) F32
  Tensor pos;       // (n_tokens) I32
  Tensor seq;       // (n_tokens) I32
  Tensor pages;     // (n_seqs, pages_per_seq) I32
  Operands io();
};

// Causal attention with grouped heads: token t of sequence s attends to the cached positions
// 0..pos[t] of s; query head h reads key/value head h / (n_heads / n_kv_heads). Scores are scale *
// q.k with the keys as they are cached. lse is the log-sum-exp of the scaled scores, the observable
// that shows a wrong softmax.
struct Attention {
  Tensor out;      // (n_tokens, n_heads, head_dim) F32
  Tensor lse;      // (n_tokens, n_heads) F32
  Tensor q;        // (n_tokens, n_heads, head_dim) F32
  Tensor k_cache;  // (n_pages, n_kv_heads, page_tokens, head_dim) F32 or F16
  Tensor v_cache;  // as k_cache
  Tensor pos;      // (n_tokens) I32
  Tensor seq;      // (n_tokens) I32
  Tensor pages;    // (n_seqs, pages_per_seq) I32
  float scale = 0;
  // Every token is of another sequence. It helps to choose a kernel and never changes the result.
  bool decode = false;
  Operands io();
};

// out = silu(gate) * up, silu(z) = z / (1 + exp(-z)). (Shazeer 2020, arXiv:2002.05202)
struct SiluMul {
  Tensor out;   // (n_tokens, ffn_dim) F32
  Tensor gate;  // as out
  Tensor up;    // as out
  Operands io();
};

// x += y: the residual connection.
struct Add {
  Tensor x;  // (n_tokens, dim) F32, in place
  Tensor y;  // as x
  Operands io();
};

// out[i] = x[rows[i]]: the rows whose logits are wanted.
struct TakeRows {
  Tensor out;   // (n_rows, dim) F32
  Tensor x;     // (n_tokens, dim) F32
  Tensor rows;  // (n_rows) I32, each < n_tokens
  Operands io();
};

// Chooses the next token of each row (sampler.h defines how) and marks it in `seen`.
struct Sample {
  Tensor out;     // (n_rows) I32: the chosen ids
  Tensor logit;   // (n_rows) F32: their logits as they came, without the repeat penalty
  Tensor seen;    // (n_seqs, n_vocab) I8: 1 where the token occurred in the sequence; updated
  Tensor logits;  // (n_rows, n_vocab) F32
  Tensor seq;     // (n_rows) I32
  Tensor pos;     // (n_rows) I32: the position that the chosen token will have
  Tensor params;  // (n_seqs, 8) I32: one SampleParams (sampler.h) per sequence
  Operands io();
};

// Makes the rows whose tokens were chosen the input of the next step: ids[i] = token[i], pos[i] =
// row_pos[i], seq[i] = row_seq[i], rows[i] = i, and then row_pos[i] += 1. So a decode step follows
// on the one before it without the host.
struct Advance {
  Tensor ids;      // (n_rows) I32
  Tensor pos;      // (n_rows) I32
  Tensor seq;      // (n_rows) I32
  Tensor rows;     // (n_rows) I32
  Tensor row_pos;  // (n_rows) I32, in place: the position of each row's next token
  Tensor token;    // (n_rows) I32: Sample's choice
  Tensor row_seq;  // (n_rows) I32
  Operands io();
};

using Op = std::variant<Embed, RmsNorm, Gemm, AddBias, Rope, KvWrite, Attention, SiluMul, Add,
                        TakeRows, Sample, Advance>;

// Where in the model an op stands: the name of the value it makes ("q_proj", "rope_k", ...; the
// taps of trace, report and tests) and the layer, or -1 outside the layers.
struct Tap {
  std::string_view name = {};
  int layer = -1;
};

struct Node {
  Op op;
  Tap tap;
};
using Plan = std::vector<Node>;

// "Gemm"
std::string_view name(const Op& op);
// The tensors of `op`, output first. The handles point into `op`.
Operands operands(Op& op);
// Throws Error (code "invalid_op") if the shapes or types of `op` do not fit together, or if an
// output overlaps another operand. Does not look at the data.
void validate(const Op& op);
// Bytes that the op must move at least (each operand once; attention: the cached keys and values of
// `kv_len` positions per token), and its floating-point operations. `kv_len` matters for Attention
// only.
std::int64_t bytes(const Op& op, std::int64_t kv_len = 0);
std::int64_t flops(const Op& op, std::int64_t kv_len = 0);

}  // namespace qwen
