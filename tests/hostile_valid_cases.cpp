#include <algorithm>
#include <cstring>
#include <limits>

#include "tests/fixtures/tiny_model.h"
#include "tests/hostile_cases.h"

namespace qwen::testing {
namespace {

fixtures::TinyModelSpec small(DType dtype) {
  return {.dtype = dtype,
          .n_layers = 1,
          .n_heads = 2,
          .n_kv_heads = 1,
          .head_dim = 16,
          .ffn_dim = 32,
          .outliers = false};
}

// Most of the time of a load goes into the vocabulary, and fuzzers load millions: the bytes, a few
// merges and four special tokens are enough.
void shorten_vocabulary(GgufWriter& w) {
  constexpr std::size_t kBytes = 256, kMerges = 16;
  const std::string prefix = "tokenizer.ggml.";
  std::vector<std::string> tokens = w.strings(prefix + "tokens");
  std::vector<std::string> merges = w.strings(prefix + "merges");
  tokens.resize(kBytes + kMerges);
  merges.resize(kMerges);
  std::vector<std::int32_t> types(tokens.size(), 1);
  for (const char* control : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    tokens.emplace_back(control);
    types.push_back(3);
  }
  tokens.emplace_back("<tool_call>");
  types.push_back(4);
  w.set_array(prefix + "tokens", tokens);
  w.set_array(prefix + "merges", merges);
  w.set_array(prefix + "token_type", types);
  for (const char* id : {"eos", "bos", "padding"}) {
    w.set(prefix + id + "_token_id", static_cast<std::uint32_t>(tokens.size() - 2));
  }
  for (const char* name : {"token_embd.weight", "output.weight"}) {
    for (GgufWriter::TensorItem& t : w.tensors) {
      if (t.name != name) continue;
      t.data.resize(t.data.size() / t.ne[1] * tokens.size());
      t.ne[1] = tokens.size();
    }
  }
}

GgufWriter short_model(const fixtures::TinyModelSpec& spec) {
  GgufWriter w = fixtures::tiny_model(spec);
  shorten_vocabulary(w);
  return w;
}

std::function<Bytes()> aligned(std::uint32_t alignment) {
  return edited([=](GgufWriter& w) {
    w.alignment = alignment;
    w.set("general.alignment", alignment);
  });
}

void add_unknown_keys(GgufWriter& w) {
  w.set("x.u8", std::uint8_t{1});
  w.set("x.i8", std::int8_t{-1});
  w.set("x.u16", std::uint16_t{2});
  w.set("x.i16", std::int16_t{-2});
  w.set("x.i32", std::int32_t{-3});
  w.set("x.u64", std::numeric_limits<std::uint64_t>::max());
  w.set("x.i64", std::numeric_limits<std::int64_t>::min());
  w.set("x.f32", std::numeric_limits<float>::quiet_NaN());
  w.set("x.f64", 1e300);
  w.set("x.bool", true);
  w.set("x.text", std::string("\xff\0 any bytes", 12));
  w.set("x.\u00e9\u6f22", std::string());
  w.set_array("x.array", std::vector<double>{1, 2, 3});
}

void add_empty_arrays(GgufWriter& w) {
  w.set_array("x.floats", std::vector<float>{});
  w.set_array("x.strings", std::vector<std::string>{});
  w.set_array("x.bytes", std::vector<std::uint8_t>{});
  w.set_array("tokenizer.ggml.merges", std::vector<std::string>{});
}

// The infos backwards, the data where it was.
Bytes other_order() {
  GgufWriter w = valid_model();
  Bytes file = w.bytes();
  std::uint64_t offset = 0;
  for (auto& t : w.tensors) {
    t.offset = offset;
    offset += (t.data.size() + 31) / 32 * 32;
  }
  std::reverse(w.tensors.begin(), w.tensors.end());
  const Bytes head = w.head();
  std::copy(head.begin(), head.end(), file.begin());
  return file;
}

// Case 97: a scale that is not a number is a legal weight.
void spoil_a_scale(GgufWriter& w) {
  const std::uint16_t nan = 0x7e00;
  std::memcpy(w.tensor("blk.0.attn_q.weight").data.data() + 34, &nan, sizeof nan);
}

}  // namespace

GgufWriter valid_model() {
  static const GgufWriter model = short_model(small(DType::kQ8_0));
  return model;
}

std::vector<ValidCase> valid_cases() {
  const auto model = [](fixtures::TinyModelSpec spec) {
    return [spec] { return short_model(spec).bytes(); };
  };
  fixtures::TinyModelSpec untied = small(DType::kQ8_0), mixed = small(DType::kF16),
                          wide = small(DType::kF32);
  untied.tied = false;
  mixed.k_dtype = DType::kF32;
  mixed.v_dtype = DType::kBF16;
  wide.dim = 64;  // not heads * head_dim
  return {
      {"plain", edited([](auto&) {})},
      {"version_2", edited([](auto& w) { w.version = 2; })},
      {"alignment_64", aligned(64)},
      {"alignment_8", aligned(8)},
      {"alignment_4096", aligned(4096)},
      {"unknown_keys", edited(add_unknown_keys)},
      {"empty_arrays", edited(add_empty_arrays)},
      {"other_order", other_order},
      {"no_padding_at_the_end",
       [] {
         Bytes file = aligned(4096)();
         file.resize(file.size() - 4096 + valid_model().tensors.back().data.size());
         return file;
       }},
      {"untied", model(untied)},
      {"f16_f32_bf16", model(mixed)},
      {"f32", model(small(DType::kF32))},
      {"key_length", model(wide)},
      {"no_template", edited([](auto& w) { w.remove_key("tokenizer.chat_template"); })},
      {"no_vocabulary",
       edited([](auto& w) { w.set("tokenizer.ggml.model", std::string("no_vocab")); })},
      // Case 79: no id is guessed, so none can lie outside of a small vocabulary.
      {"no_special_ids", edited([](auto& w) {
         for (const char* id : {"bos", "eos", "padding"}) {
           w.remove_key("tokenizer.ggml." + std::string(id) + "_token_id");
         }
       })},
      {"scale_not_a_number", edited(spoil_a_scale)},
      {"split_1_of_1", edited([](auto& w) { w.set("split.count", std::uint16_t{1}); })},
  };
}

}  // namespace qwen::testing
