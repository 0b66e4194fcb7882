#include "core/tokenizer/stream_decoder.h"

#include <string_view>
#include <utility>

#include "core/tokenizer/utf8.h"

namespace qwen {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

std::string StreamDecoder::push(std::int32_t id) {
  held_ += tokenizer_->piece(id);
  std::string out;
  std::string_view left = held_;
  while (!left.empty()) {
    const Utf8Prefix prefix = utf8_prefix(left);
    if (prefix.start == Utf8Start::kIncomplete) break;
    out += prefix.start == Utf8Start::kCharacter ? left.substr(0, prefix.length) : kReplacement;
    left.remove_prefix(prefix.length);
  }
  held_.erase(0, held_.size() - left.size());
  return out;
}

std::string StreamDecoder::finish() {
  const bool cut = !std::exchange(held_, {}).empty();
  return cut ? std::string(kReplacement) : std::string();
}

}  // namespace qwen
