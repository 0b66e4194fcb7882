// The tokenizer's data and the sampling defaults of a GGUF file, validated, as views into it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "loader/gguf.h"

namespace qwen {

// All views live as long as the file's Source.
struct TokenizerData {
  std::string model;  // "gpt2" (byte-level BPE), or "no_vocab": token ids only, the rest empty
  std::string pre;    // name of the pre-splitter, "qwen2"; empty if the file names none
  std::vector<std::string_view> tokens;  // in the byte alphabet; the index is the id
  std::vector<std::int32_t>
      types;  // one per token: 1 normal 2 unknown 3 control 4 user 5 unused 6 byte
  std::vector<std::string_view> merges;  // "left right"; the index is the rank. Not resolved here
  std::optional<std::uint32_t> bos, eos, eot, eom, padding;
  std::optional<bool> add_bos;
  std::optional<std::string> chat_template;  // Jinja text
};

inline constexpr std::uint64_t kMaxVocabulary = 1 << 20;
inline constexpr std::uint64_t kMaxMerges = 1 << 20;
inline constexpr std::uint64_t kMaxTemplateBytes = 1 << 20;

// Throws an Error (Exit::kModel) that names the key for a key that is missing or of the wrong type,
// lengths that disagree, a special id outside the vocabulary, an unknown tokenizer model; or what
// Source::check_unchanged throws. Whoever reads the tokens' bytes must ask that again.
TokenizerData read_tokenizer(const Gguf& gguf);

// Throws an Error (vocabulary_size) unless the model has one row of embedding for each token; a
// file without a vocabulary may have any number of rows.
void check_vocabulary_size(const Gguf& gguf, const TokenizerData& data, std::int64_t n_rows);

// general.sampling.*: what the file suggests. Absent keys are empty.
struct SamplingDefaults {
  std::optional<float> temp, top_p, min_p, penalty_repeat;
  std::optional<std::int32_t> top_k;
};

// Throws an Error (Exit::kModel) that names the key for a wrong type or a value without meaning
// (not finite, negative); or what Source::check_unchanged throws.
SamplingDefaults read_sampling_defaults(const Gguf& gguf);

}  // namespace qwen
