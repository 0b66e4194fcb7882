// qwen inspect: what is in a GGUF file, and whether it can be run.
#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <variant>

#include "backends/registry.h"
#include "core/error.h"
#include "core/model.h"
#include "loader/scan.h"
#include "loader/text.h"
#include "tools/qwen/command.h"
#include "tools/qwen/format.h"
#include "tools/qwen/memory.h"
#include "tools/qwen/opened_model.h"
#include "tools/qwen/options.h"

namespace qwen::cli {
namespace {

// Longer arrays and texts are cut unless --full: a vocabulary has 150,000 lines.
constexpr std::size_t kArrayItems = 8;
constexpr std::size_t kTextBytes = 200;

template <class T>
void append_numbers(Json& out, const GgufArray& array, std::size_t n) {
  const auto values = array.numbers<T>();
  for (std::size_t i = 0; i < n; ++i) out.push_back(values[i]);
}

Json array_value(const GgufArray& array, bool full) {
  const std::size_t n = full ? array.count : std::min<std::size_t>(array.count, kArrayItems);
  Json out = Json::array();
  switch (array.type) {
    case ValueType::kU8:
      append_numbers<std::uint8_t>(out, array, n);
      break;
    case ValueType::kI8:
      append_numbers<std::int8_t>(out, array, n);
      break;
    case ValueType::kU16:
      append_numbers<std::uint16_t>(out, array, n);
      break;
    case ValueType::kI16:
      append_numbers<std::int16_t>(out, array, n);
      break;
    case ValueType::kU32:
      append_numbers<std::uint32_t>(out, array, n);
      break;
    case ValueType::kI32:
      append_numbers<std::int32_t>(out, array, n);
      break;
    case ValueType::kF32:
      append_numbers<float>(out, array, n);
      break;
    case ValueType::kBool:
      append_numbers<std::uint8_t>(out, array, n);
      break;
    case ValueType::kU64:
      append_numbers<std::uint64_t>(out, array, n);
      break;
    case ValueType::kI64:
      append_numbers<std::int64_t>(out, array, n);
      break;
    case ValueType::kF64:
      append_numbers<double>(out, array, n);
      break;
    case ValueType::kString: {
      const auto strings = array.strings();
      for (std::size_t i = 0; i < n; ++i) out.push_back(std::string(strings[i]));
      break;
    }
    case ValueType::kArray:
      break;  // the parser refuses arrays of arrays
  }
  if (n < array.count) out.push_back("... " + std::to_string(array.count - n) + " more");
  return out;
}

Json metadata_value(const GgufValue& value, bool full) {
  if (const auto* array = std::get_if<GgufArray>(&value)) return array_value(*array, full);
  if (const auto* text = std::get_if<std::string_view>(&value)) {
    if (full || text->size() <= kTextBytes) return std::string(*text);
    return std::string(text->substr(0, kTextBytes)) + "... " +
           std::to_string(text->size() - kTextBytes) + " more bytes";
  }
  return std::visit(
      [](const auto& number) -> Json {
        using T = std::decay_t<decltype(number)>;
        if constexpr (std::is_arithmetic_v<T>) {
          return number;
        } else {
          return nullptr;
        }
      },
      value);
}

// As it is, or escaped where a terminal could obey it.
std::string shown(const std::string& text) { return is_plain_text(text) ? text : printable(text); }

// JSON escapes control characters, but for some only in text that is ASCII throughout.
std::string json_line(const Json& value) {
  const auto dumped = [&](bool ascii) {
    return value.dump(-1, ' ', ascii, Json::error_handler_t::replace);
  };
  const std::string text = dumped(false);
  return is_plain_text(text) ? text : dumped(true);
}

Json document(const Gguf& gguf, bool full) {
  // Straight into the list that an object is: the keys differ, and to look each up among all before
  // it would take hours for a million of them.
  Json::object_t keys;
  Json::object_t::Container& list = keys;
  list.reserve(gguf.metadata().size());
  for (const MetadataEntry& entry : gguf.metadata()) {
    list.emplace_back(std::string(entry.key), metadata_value(entry.value, full));
  }
  const Json metadata(std::move(keys));
  Json tensors = Json::array();
  for (const TensorInfo& t : gguf.tensors()) {
    const auto dims = t.tensor.dims();
    tensors.push_back({{"name", std::string(t.name)},
                       {"type", info(t.tensor.dtype).name},
                       {"shape", std::vector<std::int64_t>(dims.begin(), dims.end())},
                       {"offset", t.offset},
                       {"bytes", t.bytes}});
  }
  return {{"version", gguf.version()},
          {"alignment", gguf.alignment()},
          {"metadata", metadata},
          {"tensors", tensors},
          {"data_offset", gguf.data_offset()},
          {"file_bytes", gguf.file_bytes()}};
}

// What running the model takes, or why it cannot be run. The reference places weights where they
// lie, so trying costs nothing.
std::string runnable(OpenedModel& model) {
  try {
    const auto backend = make_backend("ref", {});
    const auto loaded = model.reading([&] { return load_model(model.file(), *backend); });
    const ModelShape& m = loaded->shape();
    const MemoryNeed need =
        memory_need({.shape = m, .weight_bytes = model.weight_bytes()}, m.context_length);
    return "layers      " + std::to_string(m.n_layers) + "\ndim         " + std::to_string(m.dim) +
           "\nffn         " + std::to_string(m.ffn_dim) + "\nheads       " +
           std::to_string(m.n_heads) + " of " + std::to_string(m.head_dim) + ", " +
           std::to_string(m.n_kv_heads) + " for keys and values\nvocabulary  " +
           thousands(m.n_vocab) + "\ncontext     " + thousands(m.context_length) +
           "\nmemory      " + bytes_text(need.total()) + " at that context (weights " +
           bytes_text(need.weights) + ", KV " + bytes_text(need.kv) + ", scratch " +
           bytes_text(need.scratch) + ")\n";
  } catch (const Error& error) {
    return "cannot run  " + shown(error.what()) + "\n";
  }
}

std::string summary_of(OpenedModel& model, bool full) {
  const Gguf& gguf = model.gguf();
  std::string text = "file        " + model.path() + "\nsize        " +
                     bytes_text(gguf.file_bytes()) + ", GGUF version " +
                     std::to_string(gguf.version()) + ", alignment " +
                     std::to_string(gguf.alignment()) + "\n";
  if (!model.name().empty()) text += "name        " + shown(model.name()) + "\n";
  text += "arch        " + shown(model.arch()) + "\nparameters  " +
          parameters_text(model.n_params()) + " (" + thousands(model.n_params()) +
          ")\nfile type   " + model.file_type() + "\n";
  text += runnable(model);
  struct Sum {
    int n = 0;
    std::uint64_t bytes = 0;
  };
  std::map<std::string_view, Sum> by_type;
  for (const TensorInfo& t : gguf.tensors()) {
    Sum& sum = by_type[info(t.tensor.dtype).name];
    ++sum.n;
    sum.bytes += t.bytes;
  }
  text += "tensors     " + thousands(static_cast<std::int64_t>(gguf.tensors().size())) + "\n";
  for (const auto& [type, sum] : by_type) {
    text += "  " + std::string(type) + "  " + std::to_string(sum.n) + "  " + bytes_text(sum.bytes) +
            "\n";
  }
  text += "metadata    " + thousands(static_cast<std::int64_t>(gguf.metadata().size())) + "\n";
  for (const MetadataEntry& entry : gguf.metadata()) {
    text +=
        "  " + std::string(entry.key) + " = " + json_line(metadata_value(entry.value, full)) + "\n";
  }
  if (!full) return text;
  text += "\n";
  for (const TensorInfo& t : gguf.tensors()) {
    text += std::string(t.name) + "  " + to_string(t.tensor) + "  at " + std::to_string(t.offset) +
            ", " + thousands(static_cast<std::int64_t>(t.bytes)) + " bytes\n";
  }
  return text;
}

void scan(OpenedModel& model) {
  const auto found = find_not_finite(model.gguf());
  if (!found) return;
  throw Error({.exit = Exit::kModel,
               .code = "weight_not_finite",
               .message = found->tensor + ": block " + std::to_string(found->block) +
                          " has a value that is not finite",
               .hint = "the file is damaged; download or convert it again",
               .file = model.path(),
               .tensor = found->tensor});
}

class Inspect : public Command {
 public:
  std::string name() const override { return "inspect"; }
  std::string summary() const override { return "what is in a model file"; }

  void declare(Parser& parser) override {
    parser.words({"MODEL"}, model_.words, "Also reads files of models that cannot be run.");
    model_.declare_model(parser);
    parser.flag("--full", full_, "long arrays and texts uncut; all tensors");
    parser.flag("--scan", scan_, "fail if a weight is not finite");
    output_.declare(parser);
  }

  void run(Console& console) override {
    output_.apply(console);
    OpenedModel model(model_.take_model(console), console);
    if (scan_) scan(model);
    if (output_.json) {
      console.document(model.reading([&] { return document(model.gguf(), full_); }));
    } else {
      console.write(model.reading([&] { return summary_of(model, full_); }));
    }
  }

 private:
  ModelOptions model_;
  OutputOptions output_;
  bool full_ = false;
  bool scan_ = false;
};

}  // namespace

std::unique_ptr<Command> make_inspect() { return std::make_unique<Inspect>(); }

}  // namespace qwen::cli
