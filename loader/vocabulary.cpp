#include "loader/vocabulary.h"

#include <cmath>
#include <limits>
#include <string>

#include "loader/source.h"
#include "loader/text.h"

namespace qwen {
namespace {

constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
constexpr std::string_view kTypes = "tokenizer.ggml.token_type";
constexpr std::string_view kMerges = "tokenizer.ggml.merges";
constexpr std::string_view kScores = "tokenizer.ggml.scores";

template <class T>
T required(const Gguf& gguf, std::string_view key, std::optional<T> value) {
  if (value) return *value;
  throw Error({.exit = Exit::kModel,
               .code = "missing_key",
               .message = "metadata key '" + std::string(key) + "' is missing",
               .hint = "the file is incomplete; convert or download it again",
               .file = gguf.source()->name(),
               .key = std::string(key)});
}

void check_length(const Gguf& gguf, std::string_view key, std::uint64_t count,
                  std::uint64_t tokens) {
  if (count != tokens) {
    throw gguf.refusal(key, "vocabulary_mismatch",
                       "expected one entry for each of the " + std::to_string(tokens) +
                           " tokens, got " + std::to_string(count));
  }
}

void read_tokens(const Gguf& gguf, TokenizerData& data) {
  const auto tokens = required(gguf, kTokens, gguf.find_array<std::string_view>(kTokens));
  if (tokens.count == 0 || tokens.count > kMaxVocabulary) {
    throw gguf.refusal(kTokens, "bad_vocabulary_size",
                       "expected 1 to " + std::to_string(kMaxVocabulary) + " tokens, got " +
                           std::to_string(tokens.count));
  }
  const auto types = required(gguf, kTypes, gguf.find_array<std::int32_t>(kTypes));
  check_length(gguf, kTypes, types.count, tokens.count);
  if (const auto scores = gguf.find_array<float>(kScores)) {
    check_length(gguf, kScores, scores->count, tokens.count);
  }
  const auto merges = required(gguf, kMerges, gguf.find_array<std::string_view>(kMerges));
  if (merges.count > kMaxMerges) {
    throw gguf.refusal(kMerges, "too_many_merges",
                       "expected at most " + std::to_string(kMaxMerges) + " merges, got " +
                           std::to_string(merges.count));
  }
  data.tokens = tokens.strings();
  data.types = types.numbers<std::int32_t>();
  data.merges = merges.strings();
  for (std::size_t id = 0; id < data.types.size(); ++id) {
    if (data.types[id] < 1 || data.types[id] > 6) {
      throw gguf.refusal(kTypes, "bad_token_type",
                         "token " + std::to_string(id) + " ('" + printable(data.tokens[id]) +
                             "') has type " + std::to_string(data.types[id]) + ", expected 1 to 6");
    }
  }
}

// The id of a special token; without a vocabulary there is no range to check it against.
std::optional<std::uint32_t> read_id(const Gguf& gguf, std::string_view name,
                                     std::size_t n_tokens) {
  const std::string key = "tokenizer.ggml." + std::string(name) + "_token_id";
  const auto id = gguf.find_as<std::uint32_t>(key);
  if (id && n_tokens > 0 && *id >= n_tokens) {
    throw gguf.refusal(key, "token_id_out_of_range",
                       "token id " + std::to_string(*id) + " is outside the vocabulary of " +
                           std::to_string(n_tokens));
  }
  return id;
}

std::optional<float> read_sampling(const Gguf& gguf, std::string_view name) {
  const std::string key = "general.sampling." + std::string(name);
  const auto value = gguf.find_as<float>(key);
  if (value && !(std::isfinite(*value) && *value >= 0)) {
    throw gguf.refusal(key, "bad_value",
                       "expected a finite number of at least 0, got " + std::to_string(*value));
  }
  return value;
}

// Converters write both signed and unsigned.
std::optional<std::int32_t> read_top_k(const Gguf& gguf) {
  const MetadataEntry* entry = gguf.find("general.sampling.top_k");
  if (entry == nullptr) return std::nullopt;
  std::int64_t value = -1;
  if (const auto* as_i32 = std::get_if<std::int32_t>(&entry->value)) {
    value = *as_i32;
  } else if (const auto* as_u32 = std::get_if<std::uint32_t>(&entry->value)) {
    value = *as_u32;
  } else {
    throw gguf.wrong_type(*entry, "i32 or u32");
  }
  if (value < 0 || value > std::numeric_limits<std::int32_t>::max()) {
    throw gguf.refusal(*entry, "bad_value",
                       "expected 0 to 2147483647, got " + std::to_string(value));
  }
  return static_cast<std::int32_t>(value);
}

TokenizerData read_all(const Gguf& gguf) {
  constexpr std::string_view kModel = "tokenizer.ggml.model";
  TokenizerData data;
  data.model = required(gguf, kModel, gguf.find_as<std::string_view>(kModel));
  if (data.model != "gpt2" && data.model != "no_vocab") {
    throw gguf.refusal(
        kModel, "unsupported_tokenizer",
        "tokenizer '" + printable(data.model) + "' is not supported (gpt2 and no_vocab are)");
  }
  data.pre = gguf.find_as<std::string_view>("tokenizer.ggml.pre").value_or(std::string_view{});
  if (data.model == "gpt2") read_tokens(gguf, data);
  data.bos = read_id(gguf, "bos", data.tokens.size());
  data.eos = read_id(gguf, "eos", data.tokens.size());
  data.eot = read_id(gguf, "eot", data.tokens.size());
  data.eom = read_id(gguf, "eom", data.tokens.size());
  data.padding = read_id(gguf, "padding", data.tokens.size());
  data.add_bos = gguf.find_as<bool>("tokenizer.ggml.add_bos_token");

  constexpr std::string_view kTemplate = "tokenizer.chat_template";
  const auto chat_template = gguf.find_as<std::string_view>(kTemplate);
  if (chat_template && chat_template->size() > kMaxTemplateBytes) {
    throw gguf.refusal(kTemplate, "template_too_large",
                       "chat template of " + human_bytes(chat_template->size()) + ", at most " +
                           human_bytes(kMaxTemplateBytes) + " are allowed");
  }
  data.chat_template = chat_template;
  return data;
}

}  // namespace

TokenizerData read_tokenizer(const Gguf& gguf) {
  return read_unchanged(*gguf.source(), [&] { return read_all(gguf); });
}

void check_vocabulary_size(const Gguf& gguf, const TokenizerData& data, std::int64_t n_rows) {
  const auto n_tokens = static_cast<std::int64_t>(data.tokens.size());
  if (data.model == "no_vocab" || n_tokens == n_rows) return;
  throw gguf.refusal(kTokens, "vocabulary_size",
                     "expected one token for each of the " + std::to_string(n_rows) +
                         " rows of the embedding, got " + std::to_string(n_tokens),
                     "the file is damaged or was made by a faulty converter");
}

SamplingDefaults read_sampling_defaults(const Gguf& gguf) {
  return read_unchanged(*gguf.source(), [&] {
    return SamplingDefaults{.temp = read_sampling(gguf, "temp"),
                            .top_p = read_sampling(gguf, "top_p"),
                            .min_p = read_sampling(gguf, "min_p"),
                            .penalty_repeat = read_sampling(gguf, "penalty_repeat"),
                            .top_k = read_top_k(gguf)};
  });
}

}  // namespace qwen
