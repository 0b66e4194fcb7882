#include "core/chat_template/from_json.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "core/chat_template/text_ops.h"

namespace qwen::jinja {

namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void fail_input(std::string code, std::string message, std::string hint) {
  throw Error({.exit = Exit::kUsage,
               .code = std::move(code),
               .message = std::move(message),
               .hint = std::move(hint)});
}

class Converter {
 public:
  explicit Converter(InputSize& size) : size_(size) {}

  Value convert(const Json& json, int depth) {
    if (depth > kMaxValueDepth) {
      fail_input("input_too_deep",
                 "messages or tools are nested more than " + std::to_string(kMaxValueDepth) +
                     " levels deep",
                 "send flatter JSON");
    }
    ++size_.values;
    switch (json.type()) {
      case Json::value_t::null:
        return None{};
      case Json::value_t::boolean:
        return json.get<bool>();
      case Json::value_t::number_integer:
        return Int(json.get<std::int64_t>());
      case Json::value_t::number_unsigned:
        return Int(json.get<std::uint64_t>());
      case Json::value_t::number_float:
        return json.get<double>();
      case Json::value_t::string:
        return text(json.get_ref<const std::string&>());
      case Json::value_t::array: {
        std::vector<Value> items;
        items.reserve(json.size());
        for (const Json& item : json) items.push_back(convert(item, depth + 1));
        return make_sequence(unlimited_, std::move(items), SequenceKind::kList);
      }
      case Json::value_t::object: {
        std::vector<std::pair<Value, Value>> entries;
        entries.reserve(json.size());
        for (auto it = json.begin(); it != json.end(); ++it) {
          Value key = text(it.key());
          entries.emplace_back(std::move(key), convert(it.value(), depth + 1));
        }
        return make_dict(unlimited_, entries);
      }
      default:
        fail_input("invalid_input", "messages or tools hold a value that is not JSON",
                   "send JSON values only");
    }
  }

 private:
  Value text(const std::string& bytes) {
    if (!is_valid_utf8(bytes)) {
      fail_input("invalid_utf8", "messages or tools hold a string that is not UTF-8",
                 "send text as UTF-8");
    }
    size_.bytes += bytes.size();
    return make_text(unlimited_, Text(bytes, false));
  }

  InputSize& size_;
  // The input's size is the caller's matter; only its depth is bounded here.
  Guard unlimited_{
      Limits{std::numeric_limits<std::uint64_t>::max(), std::numeric_limits<std::size_t>::max()}};
};

}  // namespace

Value from_json(const Json& json, InputSize& size) { return Converter(size).convert(json, 1); }

}  // namespace qwen::jinja
