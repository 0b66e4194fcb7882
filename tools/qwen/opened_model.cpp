#include "tools/qwen/opened_model.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "core/error.h"
#include "tools/default_model/default_model.h"

namespace qwen::cli {
namespace {

// general.file_type, a mixture of tensor types, as ggml-org/ggml docs/gguf.md numbers them.
constexpr std::array<std::pair<std::uint32_t, std::string_view>, 19> kFileTypes = {{
    {0, "F32"},     {1, "F16"},     {2, "Q4_0"},    {3, "Q4_1"},    {7, "Q8_0"},
    {8, "Q5_0"},    {9, "Q5_1"},    {10, "Q2_K"},   {11, "Q3_K_S"}, {12, "Q3_K_M"},
    {13, "Q3_K_L"}, {14, "Q4_K_S"}, {15, "Q4_K_M"}, {16, "Q5_K_S"}, {17, "Q5_K_M"},
    {18, "Q6_K"},   {25, "IQ4_NL"}, {30, "IQ4_XS"}, {32, "BF16"},
}};

}  // namespace

OpenedModel::OpenedModel(std::string path, Console& console)
    : path_(std::move(path)), console_(console) {
  file_.emplace(Gguf::parse(path_ == kDefaultModel ? open_default_model() : open_file(path_)));
  reading([&] {
    name_ = text_value("general.name");
    arch_ = text_value("general.architecture");
    file_type_ = read_file_type();
  });
}

const TokenizerData& OpenedModel::tokenizer_data() {
  if (!tokenizer_data_) {
    tokenizer_data_ = read_tokenizer(gguf());
    const TokenizerData& data = *tokenizer_data_;
    if (has_tokenizer() && data.pre != "qwen2") {
      console_.note("warning: tokenizer.ggml.pre is '" + data.pre +
                    "', not 'qwen2': texts are split as qwen2 does, the ids may be wrong");
    }
  }
  return *tokenizer_data_;
}

const Tokenizer& OpenedModel::tokenizer() {
  if (!has_tokenizer()) {
    throw Error({.exit = Exit::kModel,
                 .code = "no_vocabulary",
                 .message = "file has no vocabulary (tokenizer.ggml.model is 'no_vocab')",
                 .hint = "--ids 1,2,3 works without one",
                 .file = path_,
                 .key = "tokenizer.ggml.model"});
  }
  if (!tokenizer_) {
    const TokenizerData& data = tokenizer_data();
    reading([&] { tokenizer_.emplace(Vocabulary{data.tokens, data.types, data.merges}); });
  }
  return *tokenizer_;
}

std::vector<std::int32_t> OpenedModel::stop_ids() {
  const TokenizerData& data = tokenizer_data();
  std::vector<std::int32_t> ids;
  for (const auto& id : {data.eos, data.eot, data.eom}) {
    if (id) ids.push_back(static_cast<std::int32_t>(*id));
  }
  if (has_tokenizer()) {
    const Tokenizer& all = tokenizer();
    reading([&] {
      for (const char* spelling : {"<|im_end|>", "<|endoftext|>"}) {
        if (const auto id = all.find(spelling)) ids.push_back(*id);
      }
    });
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

std::string OpenedModel::text_value(std::string_view key) const {
  const MetadataEntry* entry = gguf().find(key);
  const auto* text = entry == nullptr ? nullptr : std::get_if<std::string_view>(&entry->value);
  return text == nullptr ? "" : std::string(*text);
}

std::string OpenedModel::read_file_type() const {
  const MetadataEntry* entry = gguf().find("general.file_type");
  const auto* number = entry == nullptr ? nullptr : std::get_if<std::uint32_t>(&entry->value);
  if (number != nullptr) {
    const auto known = std::find_if(kFileTypes.begin(), kFileTypes.end(),
                                    [&](const auto& row) { return row.first == *number; });
    if (known != kFileTypes.end()) return std::string(known->second);
  }
  std::map<std::string_view, std::uint64_t> by_type;
  for (const TensorInfo& t : gguf().tensors()) by_type[info(t.tensor.dtype).name] += t.bytes;
  const auto most =
      std::max_element(by_type.begin(), by_type.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == by_type.end() ? "" : std::string(most->first);
}

std::int64_t OpenedModel::n_params() const {
  std::int64_t n = 0;
  for (const TensorInfo& t : gguf().tensors()) n += t.tensor.size();
  return n;
}

std::uint64_t OpenedModel::weight_bytes() const {
  std::uint64_t n = 0;
  for (const TensorInfo& t : gguf().tensors()) n += t.bytes;
  return n;
}

Json OpenedModel::description() const {
  return {{"file", path_},
          {"name", name()},
          {"arch", arch()},
          {"n_params", n_params()},
          {"file_type", file_type()}};
}

}  // namespace qwen::cli
