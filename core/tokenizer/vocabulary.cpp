#include "core/tokenizer/vocabulary.h"

#include "core/error.h"

namespace qwen {

void refuse_vocabulary(const char* key, const char* code, std::string message) {
  throw Error({.exit = Exit::kModel,
               .code = code,
               .message = std::string(key) + ": " + std::move(message),
               .hint = "the file is damaged or not a byte-level BPE model: get it again",
               .key = key});
}

std::string quoted(std::string_view text) {
  constexpr std::size_t kLongest = 60;
  constexpr const char* kHex = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7F) {
      out += c;
    } else {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out + (text.size() > kLongest ? "...\"" : "\"");
}

}  // namespace qwen
