#include "core/models/qwen2.h"

#include <cmath>
#include <complex>

#include "core/error.h"

namespace qwen {
namespace {

constexpr std::uint32_t kMaxLayers = 512;
constexpr std::uint32_t kMaxHeadDim = 256;
constexpr std::uint32_t kMaxVocab = 1u << 20;
constexpr std::uint32_t kMaxWidth = 1u << 20;    // dim, ffn_dim, heads: far above any model
constexpr std::uint32_t kMaxContext = 1u << 30;  // positions are 32-bit

// Keys are stored less the mean of their rotated bias over these positions: most of the bias is in
// dimensions that have not turned far by then. What rounding keys to F16 costs the scores, with the
// biases of Qwen2.5-0.5B, relative to no centering, mean and worst head (computed): 0.05 and 0.9 at
// position 1,600, 0.07 and 0.9 at 4,095, 0.14 and 1.3 at 8,000, 0.29 and 1.4 at 32,767.
constexpr int kCenterPositions = 4096;

[[noreturn]] void bad_value(std::string_view key, const std::string& got,
                            const std::string& expected) {
  throw Error(
      {.exit = Exit::kModel,
       .code = "bad_value",
       .message = "metadata key '" + std::string(key) + "' is " + got + ", expected " + expected,
       .hint = "the file is damaged or was made by a faulty converter",
       .key = std::string(key)});
}

std::uint32_t in_range(const ModelFile& file, std::string_view key, std::uint32_t low,
                       std::uint32_t high) {
  const std::uint32_t value = file.u32(key);
  if (value < low || value > high) {
    bad_value(key, std::to_string(value), std::to_string(low) + " to " + std::to_string(high));
  }
  return value;
}

float positive(const ModelFile& file, std::string_view key) {
  const float value = file.f32(key);
  if (!std::isfinite(value) || value <= 0)
    bad_value(key, std::to_string(value), "a positive number");
  return value;
}

// exp(-i ln(base) 2 / head_dim), the angle per position of pair i.
std::vector<float> inverse_frequencies(std::int64_t head_dim, float base) {
  std::vector<float> table(head_dim / 2);
  for (std::size_t i = 0; i < table.size(); ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
    table[i] = static_cast<float>(std::pow(double{base}, exponent));
  }
  return table;
}

// The mean of exp(j pos angle) over the first n positions: a geometric series.
std::complex<double> mean_turn(double angle, int n) {
  const double half = angle / 2;
  if (std::sin(half) == 0) return 1;
  const double length = std::sin(n * half) / (n * std::sin(half));  // may be negative
  return {length * std::cos((n - 1) * half), length * std::sin((n - 1) * half)};
}

// Appends the mean of Rope(bias) over the first kCenterPositions to `centers`. bias: (n_kv_heads *
// head_dim) F32.
void append_center(const Tensor& bias, const std::vector<float>& inv_freq,
                   std::vector<float>& centers) {
  const std::size_t half = inv_freq.size();
  for (std::size_t head = 0; head < static_cast<std::size_t>(bias.size()); head += 2 * half) {
    const float* b = bias.f32() + head;
    float* center = &*centers.insert(centers.end(), 2 * half, 0.0f);
    for (std::size_t i = 0; i < half; ++i) {
      const auto c = std::complex<double>(b[i], b[i + half]) *
                     mean_turn(double{inv_freq[i]}, kCenterPositions);
      center[i] = static_cast<float>(c.real());
      center[i + half] = static_cast<float>(c.imag());
    }
  }
}

// Layers of which the file has anything; the tensors themselves are asked for when they are taken.
std::uint32_t layers_present(const ModelFile& file) {
  std::uint32_t n = 0;
  const auto has = [&](const char* name) {
    return file.has_tensor("blk." + std::to_string(n) + name);
  };
  while (n < kMaxLayers && (has(".attn_norm.weight") || has(".attn_q.weight"))) ++n;
  return n;
}

}  // namespace

void Qwen2::read_config(const ModelFile& file) {
  shape_.arch = "qwen2";
  shape_.n_layers = in_range(file, "qwen2.block_count", 1, kMaxLayers);
  if (const std::uint32_t present = layers_present(file); shape_.n_layers > present) {
    bad_value("qwen2.block_count", std::to_string(shape_.n_layers),
              "the " + std::to_string(present) + " layers that the file has");
  }
  shape_.context_length = in_range(file, "qwen2.context_length", 1, kMaxContext);
  shape_.dim = in_range(file, "qwen2.embedding_length", 1, kMaxWidth);
  shape_.ffn_dim = in_range(file, "qwen2.feed_forward_length", 1, kMaxWidth);
  shape_.n_heads = in_range(file, "qwen2.attention.head_count", 1, kMaxWidth);
  shape_.n_kv_heads = in_range(file, "qwen2.attention.head_count_kv", 1, kMaxWidth);
  eps_ = positive(file, "qwen2.attention.layer_norm_rms_epsilon");
  rope_base_ = positive(file, "qwen2.rope.freq_base");

  if (shape_.n_heads % shape_.n_kv_heads != 0) {
    bad_value("qwen2.attention.head_count_kv", std::to_string(shape_.n_kv_heads),
              "a divisor of head_count " + std::to_string(shape_.n_heads));
  }
  if (const auto length = file.find_u32("qwen2.attention.key_length")) {
    shape_.head_dim = *length;
    const auto value_length = file.find_u32("qwen2.attention.value_length");
    if (value_length.value_or(*length) != *length) {
      bad_value("qwen2.attention.value_length", std::to_string(*value_length),
                "key_length " + std::to_string(*length));
    }
  } else if (shape_.dim % shape_.n_heads == 0) {
    shape_.head_dim = shape_.dim / shape_.n_heads;
  } else {
    bad_value("qwen2.embedding_length", std::to_string(shape_.dim),
              "a multiple of head_count " + std::to_string(shape_.n_heads));
  }
  if (shape_.head_dim < 2 || shape_.head_dim > kMaxHeadDim || shape_.head_dim % 2 != 0) {
    const bool given = file.find_u32("qwen2.attention.key_length").has_value();
    const std::string bounds = "a head_dim that is even and 2 to " + std::to_string(kMaxHeadDim);
    if (given) bad_value("qwen2.attention.key_length", std::to_string(shape_.head_dim), bounds);
    bad_value("qwen2.attention.head_count", std::to_string(shape_.n_heads),
              bounds + ", not " + std::to_string(shape_.head_dim));
  }
  if (const auto rotated = file.find_u32("qwen2.rope.dimension_count");
      rotated.value_or(shape_.head_dim) != shape_.head_dim) {
    bad_value("qwen2.rope.dimension_count", std::to_string(*rotated),
              "head_dim " + std::to_string(shape_.head_dim));
  }
  if (const auto scaling = file.find_string("qwen2.rope.scaling.type");
      scaling.value_or("none") != "none") {
    throw Error({.exit = Exit::kModel,
                 .code = "unsupported_rope_scaling",
                 .message = "rope scaling '" + *scaling + "' is not supported yet",
                 .hint = "use the file without rope scaling",
                 .key = "qwen2.rope.scaling.type"});
  }
  // The same by other keys; a factor of 1 scales nothing.
  for (const char* key : {"qwen2.rope.scaling.factor", "qwen2.rope.scale_linear"}) {
    if (const auto factor = file.find_f32(key); factor.value_or(1.0f) != 1.0f) {
      bad_value(key, std::to_string(*factor), "1 (rope scaling is not supported yet)");
    }
  }
  const auto embedding = file.tensor_shape("token_embd.weight");
  shape_.n_vocab = embedding[0];
  if (shape_.n_vocab > kMaxVocab) {
    throw Error({.exit = Exit::kModel,
                 .code = "bad_value",
                 .message = "token_embd.weight has " + std::to_string(shape_.n_vocab) +
                            " rows, expected at most " + std::to_string(kMaxVocab),
                 .tensor = "token_embd.weight"});
  }
  if (const auto n = file.find_u32("qwen2.vocab_size");
      n.value_or(shape_.n_vocab) != shape_.n_vocab) {
    bad_value("qwen2.vocab_size", std::to_string(*n),
              "the " + std::to_string(shape_.n_vocab) + " rows of token_embd.weight");
  }
}

Qwen2::Qwen2(ModelFile& file, Backend& backend) : copies_(backend) {
  read_config(file);
  const std::int64_t dim = shape_.dim;
  const std::int64_t q_dim = shape_.n_heads * shape_.head_dim;
  const std::int64_t kv_dim = shape_.n_kv_heads * shape_.head_dim;

  const auto read = [&](const std::string& tensor, std::initializer_list<std::int64_t> dims) {
    const Tensor host = file.take(tensor, dims);
    shape_.n_params += host.size();
    return host;
  };
  const auto keep = [&](const Tensor& host, const Tensor& placed) {
    if (placed.data == host.data) {
      file_ = &file;
    } else {
      copies_.tensors.push_back(placed);
      file.release(host);
    }
    return placed;
  };
  const auto place = [&](const Tensor& host) { return keep(host, backend.place_weight(host)); };
  const auto take = [&](const std::string& tensor, std::initializer_list<std::int64_t> dims) {
    return place(read(tensor, dims));
  };
  // Norms and biases are read element by element: they are F32 in every converter's output.
  const auto read_f32 = [&](const std::string& tensor, std::int64_t n) {
    const Tensor t = read(tensor, {n});
    if (t.dtype != DType::kF32) {
      throw Error(
          {.exit = Exit::kModel,
           .code = "wrong_type",
           .message = tensor + ": expected type F32, got " + std::string(info(t.dtype).name),
           .tensor = tensor});
    }
    return t;
  };
  const auto take_f32 = [&](const std::string& tensor, std::int64_t n) {
    return place(read_f32(tensor, n));
  };
  const std::vector<float> inv_freq = inverse_frequencies(shape_.head_dim, rope_base_);
  std::vector<float> centers;  // (n_layers, n_kv_heads, head_dim)

  // Without a head of its own the model multiplies with the embedding.
  const bool has_head = file.has_tensor("output.weight");
  const Tensor embedding = read("token_embd.weight", {shape_.n_vocab, dim});
  embed_ = has_head ? keep(embedding, backend.place_embedding(embedding)) : place(embedding);
  for (std::int64_t i = 0; i < shape_.n_layers; ++i) {
    const std::string blk = "blk." + std::to_string(i) + ".";
    Layer l;
    l.attn_norm = take_f32(blk + "attn_norm.weight", dim);
    l.q = take(blk + "attn_q.weight", {q_dim, dim});
    l.k = take(blk + "attn_k.weight", {kv_dim, dim});
    l.v = take(blk + "attn_v.weight", {kv_dim, dim});
    l.q_bias = take_f32(blk + "attn_q.bias", q_dim);
    const Tensor k_bias = read_f32(blk + "attn_k.bias", kv_dim);
    append_center(k_bias, inv_freq, centers);
    l.k_bias = place(k_bias);
    l.v_bias = take_f32(blk + "attn_v.bias", kv_dim);
    l.o = take(blk + "attn_output.weight", {dim, q_dim});
    l.ffn_norm = take_f32(blk + "ffn_norm.weight", dim);
    l.gate = take(blk + "ffn_gate.weight", {shape_.ffn_dim, dim});
    l.up = take(blk + "ffn_up.weight", {shape_.ffn_dim, dim});
    l.down = take(blk + "ffn_down.weight", {dim, shape_.ffn_dim});
    layers_.push_back(l);
  }
  output_norm_ = take_f32("output_norm.weight", dim);
  head_ = has_head ? take("output.weight", {shape_.n_vocab, dim}) : embed_;
  file.check_all_taken();
  file.check_unchanged();
  inv_freq_ = place_table(backend, inv_freq);
  const Tensor placed =
      place_table(backend, centers).reshape({shape_.n_layers, shape_.n_kv_heads, shape_.head_dim});
  for (std::int64_t i = 0; i < shape_.n_layers; ++i) {
    layers_[i].k_center = placed.slice(i, i + 1).reshape({shape_.n_kv_heads, shape_.head_dim});
  }
}

void Qwen2::check_weights() const {
  if (file_ != nullptr) file_->check_unchanged();
}

Tensor Qwen2::place_table(Backend& backend, const std::vector<float>& table) {
  const auto n = static_cast<std::int64_t>(table.size());
  tables_.push_back(backend.allocate(bytes_of(DType::kF32, n)));
  const Tensor placed(tables_.back().get(), DType::kF32, {n});
  backend.write(placed, table.data());
  return placed;
}

Tensor Qwen2::forward(Backend& be, const Step& step, const KvCache& kv, Arena& arena,
                      std::int64_t n_layers) const {
  const std::int64_t n_tokens = step.ids.shape[0];
  const std::int64_t n_rows = step.rows.shape[0];
  const std::int64_t head_dim = shape_.head_dim;
  const std::int64_t n_heads = shape_.n_heads;
  const std::int64_t n_kv_heads = shape_.n_kv_heads;
  const auto take = [&](std::int64_t rows, std::int64_t cols) {
    return arena.take(DType::kF32, {rows, cols});
  };
  const auto heads = [&](const Tensor& t, std::int64_t n) {
    return t.reshape({n_tokens, n, head_dim});
  };

  const Tensor x = take(n_tokens, shape_.dim);  // the residual stream
  const Tensor h = take(n_tokens, shape_.dim);  // normed input of a block, then its output
  const Tensor q = take(n_tokens, n_heads * head_dim);
  const Tensor k = take(n_tokens, n_kv_heads * head_dim);
  const Tensor v = take(n_tokens, n_kv_heads * head_dim);
  const Tensor attn = take(n_tokens, n_heads * head_dim);
  const Tensor lse = take(n_tokens, n_heads);
  const Tensor gate = take(n_tokens, shape_.ffn_dim);
  const Tensor up = take(n_tokens, shape_.ffn_dim);
  const Tensor swiglu = take(n_tokens, shape_.ffn_dim);
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));

  be(Embed{x, embed_, step.ids}, {"embed"});
  for (int i = 0; i < n_layers; ++i) {
    const Layer& l = layers_[i];
    be(RmsNorm{h, x, l.attn_norm, eps_}, {"attn_norm", i});
    be(Gemm{q, h, l.q}, {"q_proj", i});
    be(Gemm{k, h, l.k}, {"k_proj", i});
    be(Gemm{v, h, l.v}, {"v_proj", i});
    be(AddBias{q, l.q_bias}, {"q_bias", i});
    be(AddBias{k, l.k_bias}, {"k_bias", i});
    be(AddBias{v, l.v_bias}, {"v_bias", i});
    be(Rope{heads(q, n_heads), step.pos, inv_freq_}, {"rope_q", i});
    be(Rope{heads(k, n_kv_heads), step.pos, inv_freq_}, {"rope_k", i});
    be(KvWrite{kv.k(i), kv.v(i), heads(k, n_kv_heads), heads(v, n_kv_heads), l.k_center, step.pos,
               step.seq, kv.pages()},
       {"kv_write", i});
    be(Attention{heads(attn, n_heads), lse, heads(q, n_heads), kv.k(i), kv.v(i), step.pos, step.seq,
                 kv.pages(), scale, step.decode},
       {"attn_out", i});
    be(Gemm{h, attn, l.o}, {"o_proj", i});
    be(Add{x, h}, {"resid1", i});

    be(RmsNorm{h, x, l.ffn_norm, eps_}, {"ffn_norm", i});
    be(Gemm{gate, h, l.gate}, {"gate", i});
    be(Gemm{up, h, l.up}, {"up", i});
    be(SiluMul{swiglu, gate, up}, {"swiglu", i});
    be(Gemm{h, swiglu, l.down}, {"down", i});
    be(Add{x, h}, {"resid2", i});
  }

  // Only the rows whose logits are wanted go through the last norm and the head.
  const Tensor last = take(n_rows, shape_.dim);
  const Tensor normed = take(n_rows, shape_.dim);
  const Tensor logits = take(n_rows, shape_.n_vocab);
  if (n_rows == 0) return logits;
  be(TakeRows{last, x, step.rows}, {"take_rows"});
  be(RmsNorm{normed, last, output_norm_, eps_}, {"final_norm"});
  be(Gemm{.out = logits, .x = normed, .weight = head_, .is_head = true}, {"logits"});
  return logits;
}

}  // namespace qwen
