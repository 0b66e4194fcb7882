#include "tests/hostile_load.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backends/cpu/reference/reference.h"
#include "core/blocks.h"
#include "core/chat_template/chat_template.h"
#include "core/session.h"
#include "core/tokenizer/tokenizer.h"
#include "loader/vocabulary.h"
#include "loader/weights.h"
#include "tests/require.h"

namespace qwen::testing {
namespace {

void touch(const GgufArray& array) {
  std::uint64_t bytes = 0;
  if (array.type == ValueType::kString) {
    for (const std::string_view text : array.strings()) {
      require(text.data() + text.size() <=
                  reinterpret_cast<const char*>(array.bytes.data() + array.bytes.size()),
              "a string lies in its array");
      bytes += 8 + text.size();
    }
  } else {
    bytes = array.count * size_of(array.type);
  }
  require(bytes == array.bytes.size(), "an array is as long as its elements");
}

void touch(const Gguf& gguf, const TensorInfo& t) {
  require(t.tensor.bytes() == t.bytes, "a tensor's bytes follow from its shape");
  require(t.tensor.size() > 0 && t.tensor.size() % info(t.tensor.dtype).block_size == 0,
          "a tensor is made of whole blocks");
  require(t.offset % gguf.alignment() == 0, "a tensor is aligned");
  require(gguf.data_offset() <= gguf.file_bytes() &&
              t.offset <= gguf.file_bytes() - gguf.data_offset() &&
              t.bytes <= gguf.file_bytes() - gguf.data_offset() - t.offset,
          "a tensor lies in the file");
  require(gguf.find_tensor(t.name) == &t, "a tensor is found by its name");
  std::vector<float> values(static_cast<std::size_t>(t.tensor.size()));
  decode(t.tensor.dtype, t.tensor.data, t.tensor.size(), values.data());
}

void render_once(const TokenizerData& data) {
  if (!data.chat_template) return;
  using Json = nlohmann::ordered_json;
  const Json messages = {{{"role", "user"}, {"content", "hi"}}};
  const ChatTemplate chat{std::string(*data.chat_template)};
  chat.render(messages, nullptr);
}

void step_once(GgufModelFile& file, const TokenizerData& data) {
  ReferenceBackend backend;
  const std::unique_ptr<Model> model = load_model(file, backend);
  const std::int64_t n_vocab = model->shape().n_vocab;
  check_vocabulary_size(file.gguf(), data, n_vocab);
  Session session(*model, backend, {.ctx = 2, .max_step_tokens = 2});
  const std::array<std::int32_t, 2> ids = {0, static_cast<std::int32_t>(n_vocab - 1)};
  const Tensor logits = session.prefill(0, ids);
  require(logits.rank == 2 && logits.shape[0] == 1 && logits.shape[1] == n_vocab,
          "the logits have their shape");
}

}  // namespace

Gguf parse_and_touch(std::shared_ptr<const Source> source) {
  Gguf gguf = Gguf::parse(std::move(source));
  for (const MetadataEntry& entry : gguf.metadata()) {
    require(gguf.find(entry.key) == &entry, "a key is found");
    if (const auto* array = std::get_if<GgufArray>(&entry.value)) touch(*array);
  }
  for (const TensorInfo& t : gguf.tensors()) touch(gguf, t);
  return gguf;
}

void load_and_step(std::shared_ptr<const Source> source) {
  const std::string name = source->name();
  try {
    GgufModelFile file(Gguf::parse(std::move(source)));
    const TokenizerData data = read_tokenizer(file.gguf());
    read_sampling_defaults(file.gguf());
    std::optional<Tokenizer> tokenizer;
    if (data.model != "no_vocab")
      tokenizer.emplace(Vocabulary{data.tokens, data.types, data.merges});
    render_once(data);
    step_once(file, data);
  } catch (Error& error) {
    error.set_file(name);
    throw;
  }
}

}  // namespace qwen::testing
