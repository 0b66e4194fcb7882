#include <limits>
#include <string>

#include "tests/hostile_cases.h"

namespace qwen::testing {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
const std::string kQwen = "qwen2.";
const std::string kHeads = "qwen2.attention.head_count";
const std::string kKvHeads = "qwen2.attention.head_count_kv";
const std::string kToken = "tokenizer.ggml.";
const std::string kTemplate = "tokenizer.chat_template";

template <class T>
std::function<Bytes()> with(const std::string& key, T value) {
  return edited([=](GgufWriter& w) { w.set(key, value); });
}
std::function<Bytes()> with_u32(const std::string& key, std::uint32_t value) {
  return with(key, value);
}
template <class T>
std::function<Bytes()> with_array(const std::string& key, std::vector<T> values) {
  return edited([=](GgufWriter& w) { w.set_array(key, values); });
}
std::function<Bytes()> without(const std::string& key) {
  return edited([=](GgufWriter& w) { w.remove_key(key); });
}

// The strings of an array of the valid file, changed.
std::function<Bytes()> with_strings(const std::string& key,
                                    const std::function<void(std::vector<std::string>&)>& change) {
  return edited([=](GgufWriter& w) {
    std::vector<std::string> texts = w.strings(key);
    change(texts);
    w.set_array(key, texts);
  });
}

std::function<Bytes()> with_shape(const std::string& tensor, std::vector<std::uint64_t> ne) {
  return edited([=](GgufWriter& w) {
    GgufWriter::TensorItem& t = w.tensor(tensor);
    std::uint64_t rows = 1;
    for (std::size_t i = 1; i < ne.size(); ++i) rows *= ne[i];
    const std::uint64_t row = t.type == 8 ? ne[0] / 32 * 34 : ne[0] * 4;
    t.ne = ne;
    t.data.resize(rows * row);
  });
}

std::function<Bytes()> split(std::uint16_t number, std::uint16_t count) {
  return edited([=](GgufWriter& w) {
    w.set("split.no", number);
    w.set("split.count", count);
  });
}

std::function<Bytes()> with_template(const std::string& text) { return with(kTemplate, text); }

void add_required_keys(std::vector<HostileCase>& all) {
  const std::vector<std::string> keys = {"general.architecture",
                                         kQwen + "block_count",
                                         kQwen + "context_length",
                                         kQwen + "embedding_length",
                                         kQwen + "feed_forward_length",
                                         kHeads,
                                         kKvHeads,
                                         kQwen + "attention.layer_norm_rms_epsilon",
                                         kQwen + "rope.freq_base",
                                         kToken + "model",
                                         kToken + "tokens",
                                         kToken + "token_type",
                                         kToken + "merges"};
  for (const std::string& key : keys) {
    const int first = key == "general.architecture" ? 62 : 63;
    all.push_back({first, "no_" + key, without(key), "missing_key", key});
    all.push_back({first == 62 ? 62 : 64, "f64_" + key, with(key, 2.0), "wrong_type", key});
  }
}

void add_bad_floats(std::vector<HostileCase>& all) {
  for (const char* name :
       {"attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.scaling.factor"}) {
    for (const float value : {kNan, kInf, -kInf, 0.0f, -1.0f}) {
      all.push_back({34, name + ("_" + std::to_string(value)), with(kQwen + name, value),
                     "bad_value", kQwen + name});
    }
  }
}

std::vector<HostileCase> config_cases() {
  const std::string layers = kQwen + "block_count";
  const std::string key_length = kQwen + "attention.key_length";
  return {
      {62, "other_architecture", with("general.architecture", std::string("llama")),
       "unsupported_architecture", "general.architecture"},
      {65, "no_layers", with_u32(layers, 0), "bad_value", layers},
      {66, "513_layers", with_u32(layers, 513), "bad_value", layers},
      {66, "layers_max", with_u32(layers, 0xffffffff), "bad_value", layers},
      {67, "more_layers_than_there_are", with_u32(layers, 3), "bad_value", layers},
      {68, "no_heads", with_u32(kHeads, 0), "bad_value", kHeads},
      {69, "no_kv_heads", with_u32(kKvHeads, 0), "bad_value", kKvHeads},
      {70, "kv_heads_no_divisor", with_u32(kKvHeads, 3), "bad_value", kKvHeads},
      {71, "heads_no_divisor", edited([](auto& w) {
         w.set(kHeads, std::uint32_t{3});
         w.set(kKvHeads, std::uint32_t{3});
       }),
       "bad_value", kQwen + "embedding_length"},
      {72, "head_dim_odd", with_u32(kHeads, 32), "bad_value", kHeads},
      {72, "head_dim_0", with_u32(key_length, 0), "bad_value", key_length},
      {72, "head_dim_257", with_u32(key_length, 257), "bad_value", key_length},
      {72, "head_dim_258", with_u32(key_length, 258), "bad_value", key_length},
      {72, "head_dim_max", with_u32(key_length, 0xfffffffe), "bad_value", key_length},
      {72, "value_length_differs", edited([](auto& w) {
         w.set("qwen2.attention.key_length", std::uint32_t{16});
         w.set("qwen2.attention.value_length", std::uint32_t{32});
       }),
       "bad_value", kQwen + "attention.value_length"},
      {72, "rope_dimension_count", with_u32(kQwen + "rope.dimension_count", 8), "bad_value",
       kQwen + "rope.dimension_count"},
      {73, "context_0", with_u32(kQwen + "context_length", 0), "bad_value",
       kQwen + "context_length"},
      {73, "context_max", with_u32(kQwen + "context_length", 0xffffffff), "bad_value",
       kQwen + "context_length"},
      {73, "context_2_32", with(kQwen + "context_length", std::uint64_t{1} << 32), "wrong_type",
       kQwen + "context_length"},
      {74, "bias_one_short", with_shape("blk.0.attn_q.bias", {31}), "wrong_shape",
       "blk.0.attn_q.bias"},
      {74, "k_transposed", with_shape("blk.0.attn_k.weight", {32, 32}), "wrong_shape",
       "blk.0.attn_k.weight"},
      {74, "ffn_other", with_shape("blk.0.ffn_up.weight", {32, 64}), "wrong_shape",
       "blk.0.ffn_up.weight"},
      {74, "bias_missing", edited([](auto& w) { w.remove_tensor("blk.0.attn_v.bias"); }),
       "missing_tensor", "blk.0.attn_v.bias"},
      {74, "embedding_rank_1", with_shape("token_embd.weight", {32}), "wrong_shape",
       "token_embd.weight"},
      {74, "rows_other_than_tokens", with_shape("token_embd.weight", {32, 64}), "vocabulary_size",
       kToken + "tokens"},
      {74, "vocab_size_other", with_u32(kQwen + "vocab_size", 64), "bad_value",
       kQwen + "vocab_size"},
      {74, "unknown_tensor",
       edited([](auto& w) { w.add_tensor("rope_freqs.weight", {8}, DType::kF32, Bytes(32)); }),
       "unknown_tensor", "rope_freqs.weight"},
      {34, "rope_scaling", with(kQwen + "rope.scaling.type", std::string("yarn")),
       "unsupported_rope_scaling", kQwen + "rope.scaling.type"},
  };
}

std::vector<HostileCase> tokenizer_cases() {
  const std::string tokens = kToken + "tokens", types = kToken + "token_type",
                    merges = kToken + "merges";
  const auto types_of = [types](std::size_t n, std::int32_t type) {
    return with_array(types, std::vector<std::int32_t>(n, type));
  };
  const std::size_t n = valid_model().strings(tokens).size();
  return {
      {75, "other_tokenizer", with(kToken + "model", std::string("llama")), "unsupported_tokenizer",
       kToken + "model"},
      {75, "no_tokens", with_array(tokens, std::vector<std::string>{}), "bad_vocabulary_size",
       tokens},
      {75, "too_many_tokens", with_array(tokens, std::vector<std::string>((1 << 20) + 1)),
       "bad_vocabulary_size", tokens},
      {76, "types_short", types_of(7, 1), "vocabulary_mismatch", types},
      {76, "scores_short", with_array(kToken + "scores", std::vector<float>(5)),
       "vocabulary_mismatch", kToken + "scores"},
      {77, "tokens_u8", with_array(tokens, std::vector<std::uint8_t>(n)), "wrong_type", tokens},
      {77, "types_u8", with_array(types, std::vector<std::uint8_t>(n, 1)), "wrong_type", types},
      {78, "eos_is_vocab", with_u32(kToken + "eos_token_id", static_cast<std::uint32_t>(n)),
       "token_id_out_of_range", kToken + "eos_token_id"},
      {78, "bos_max", with_u32(kToken + "bos_token_id", 0xffffffff), "token_id_out_of_range",
       kToken + "bos_token_id"},
      {78, "padding_past", with_u32(kToken + "padding_token_id", 99999), "token_id_out_of_range",
       kToken + "padding_token_id"},
      {78, "bos_signed", with(kToken + "bos_token_id", std::int32_t{-1}), "wrong_type",
       kToken + "bos_token_id"},
      {78, "add_bos_u8", with(kToken + "add_bos_token", std::uint8_t{0}), "wrong_type",
       kToken + "add_bos_token"},
      {80, "token_of_2_31_bytes", edited([=](GgufWriter& w) {
         Bytes value;
         fixtures::append(value, std::uint32_t{8});
         fixtures::append(value, std::uint64_t{2});
         fixtures::append_string(value, "a");
         fixtures::append(value, std::uint64_t{1} << 31);
         w.set_raw(tokens, fixtures::kArrayId, value);
       }),
       "string_past_end", tokens},
      {81, "merge_of_unknown", with_strings(merges, [](auto& m) { m[3] = "qz zq"; }),
       "unknown_token_in_merge", merges},
      {81, "merge_makes_unknown", with_strings(merges, [](auto& m) { m[3] = "q q"; }),
       "unknown_token_in_merge", merges},
      {81, "merge_twice", with_strings(merges, [](auto& m) { m[3] = m[2]; }), "duplicate_merge",
       merges},
      {82, "merge_without_space", with_strings(merges, [](auto& m) { m[3] = "ab"; }), "bad_merge",
       merges},
      {82, "most_merges_all_empty", with_array(merges, std::vector<std::string>(1 << 20)),
       "bad_merge", merges},
      {82, "too_many_merges", with_array(merges, std::vector<std::string>((1 << 20) + 1)),
       "too_many_merges", merges},
      {82, "merge_with_two_spaces", with_strings(merges, [](auto& m) { m[3] = "a b c"; }),
       "bad_merge", merges},
      {83, "byte_token", edited([=](GgufWriter& w) {
         std::vector<std::int32_t> values(n, 1);
         values[n - 1] = 6;
         w.set_array(types, values);
         auto texts = w.strings(tokens);
         texts[n - 1] = "<0xZZ>";
         w.set_array(tokens, texts);
       }),
       "bad_token_type", types},
      {83, "not_in_byte_alphabet", with_strings(tokens, [](auto& t) { t[260] = "\xff\xfe"; }),
       "not_in_byte_alphabet", tokens},
      {83, "byte_without_token", with_strings(tokens, [](auto& t) { t[65] = "abc"; }),
       "missing_byte_token", tokens},
      {83, "type_7", types_of(n, 7), "bad_token_type", types},
      {84, "duplicate_token", with_strings(tokens, [](auto& t) { t[260] = t[259]; }),
       "duplicate_token", tokens},
      {83, "special_token_of_1_mb",
       with_strings(tokens, [](auto& t) { t.back() = std::string(1 << 20, 'a') + "b"; }),
       "special_token_too_long", tokens},
      {84, "empty_token", with_strings(tokens, [](auto& t) { t[260] = ""; }), "empty_token",
       tokens},
  };
}

std::vector<HostileCase> template_cases() {
  return {
      {85, "template_of_100_mb", with_template(std::string(100 << 20, 'x')), "string_too_large",
       kTemplate},
      {85, "template_of_2_mb", with_template(std::string(2 << 20, 'x')), "template_too_large",
       kTemplate},
      {86, "class_payload",
       with_template("{{ ''.__class__.__mro__[1].__subclasses__()[104]('id') }}"),
       "template_unsupported", kTemplate},
      {86, "cycler_payload", with_template("{{ cycler.__init__.__globals__.os.popen('id') }}"),
       "template_unsupported", kTemplate},
      {87, "endless_recursion", with_template("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
       "template_too_deep", kTemplate},
      {87, "nested_loops",
       with_template("{% for i in range(9999) %}{% for j in range(9999) %}{% for k in range(9999) "
                     "%}{% endfor %}{% endfor %}{% endfor %}"),
       "template_limit", kTemplate},
      {88, "syntax", with_template("{% for message in messages %}"), "template_syntax", kTemplate},
      {88, "unsupported", with_template("{% include 'x' %}"), "template_unsupported", kTemplate},
  };
}

std::vector<HostileCase> split_and_sampling_cases() {
  const std::string sampling = "general.sampling.";
  return {
      {89, "split_0", split(0, 0), "bad_split", "split.count"},
      {89, "split_65535", split(0, 65535), "bad_split", "split.count"},
      {89, "split_text", with("split.count", std::string("2")), "wrong_type", "split.count"},
      {90, "split_number", split(2, 2), "bad_split", "split.no"},
      {91, "name_leaves_the_folder",
       edited([](auto& w) { w.add_tensor("../../etc/passwd", {8}, DType::kF32, Bytes(32)); }),
       "unknown_tensor", "../../etc/passwd"},
      {92, "split_2", split(1, 2), "split_file", "split.count"},
      {34, "sampling_nan", with(sampling + "temp", kNan), "bad_value", sampling + "temp"},
      {34, "sampling_negative", with(sampling + "top_k", std::int32_t{-1}), "bad_value",
       sampling + "top_k"},
      {34, "sampling_f64", with(sampling + "top_p", 0.5), "wrong_type", sampling + "top_p"},
  };
}

}  // namespace

std::vector<HostileCase> model_cases() {
  std::vector<HostileCase> all;
  add_required_keys(all);
  add_bad_floats(all);
  for (const auto& part :
       {config_cases(), tokenizer_cases(), template_cases(), split_and_sampling_cases()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

std::vector<HostileCase> hostile_cases() {
  std::vector<HostileCase> all = layout_cases();
  for (HostileCase& c : model_cases()) all.push_back(std::move(c));
  return all;
}

}  // namespace qwen::testing
