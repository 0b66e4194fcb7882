// Texts to ids and back. The first byte chooses which special tokens count.
#include <string>

#include "core/error.h"
#include "core/tokenizer/normalizer.h"
#include "core/tokenizer/stream_decoder.h"
#include "core/tokenizer/tokenizer.h"
#include "core/tokenizer/utf8.h"
#include "tests/fixtures/tiny_vocabulary.h"
#include "tests/fuzz/target.h"

namespace qwen::fuzz {
namespace {

const Tokenizer& tokenizer() {
  static const Tokenizer made = [] {
    const fixtures::TinyVocabulary& v = fixtures::tiny_vocabulary();
    return Tokenizer(
        {{v.tokens.begin(), v.tokens.end()}, v.types, {v.merges.begin(), v.merges.end()}});
  }();
  return made;
}

std::string streamed(std::span<const std::int32_t> ids) {
  StreamDecoder decoder(tokenizer());
  std::string text;
  for (const std::int32_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

void check_round_trip(std::string_view text, Specials specials) {
  const std::vector<std::int32_t> ids = tokenizer().encode(text, specials);
  const std::string back = tokenizer().decode(ids);
  if (specials == Specials::kNone) {
    std::string buffer;
    require(back == normalize_nfc(text, buffer), "a text comes back in NFC");
  }
  require(tokenizer().encode(back, specials) == ids, "what comes back has the same ids");
  require(streamed(ids) == back, "a stream gives the same text");
}

// Ids that no text gives: each byte is one.
void check_any_ids(std::string_view bytes) {
  std::vector<std::int32_t> ids;
  for (const char c : bytes) ids.push_back(static_cast<unsigned char>(c) * 3 % tokenizer().size());
  require(find_invalid_utf8(streamed(ids)) == std::string_view::npos, "a stream is UTF-8");
}

}  // namespace

void run(std::span<const std::byte> input) {
  if (input.empty()) return;
  const std::string text(to_text(input.subspan(1)));  // of exactly its size
  check_any_ids(text);
  try {
    check_round_trip(text, static_cast<Specials>(static_cast<unsigned>(input[0]) % 3));
  } catch (const Error& error) {
    require(error.info().code == "invalid_utf8", "a text is refused for one reason only");
    require(find_invalid_utf8(text) != text.npos, "a valid text is not refused");
  }
}

std::vector<Bytes> seeds() {
  std::vector<Bytes> all;
  for (const char mode : {0, 1, 2}) {
    for (const char* text :
         {"the people who <|im_start|>user\nfirst<tool_call>x</tool_call><|im_end|>",
          "don't  12345\t\r\n  cafe\u0301 \u6f22\u5b57 \U0001f600 \u1112\u1161",
          "a\u0323\u0307\u0301 \u0344 \u2126 >\u0338 \ufb01 \u202e"}) {
      all.push_back(to_bytes(std::string(1, mode) + text));
    }
  }
  return all;
}

Bytes mutate(const Bytes& input, std::size_t max_bytes, Random& random) {
  static constexpr std::string_view kWords[] = {"<|im_start|>",
                                                "<|im_end|>",
                                                "<tool_call>",
                                                "<|endoftext|",
                                                " the",
                                                "'ll",
                                                "\r\n\n",
                                                "\u0301",
                                                "\u0323",
                                                "\u0338",
                                                "\u3099",
                                                "\u1161",
                                                "\u11a8",
                                                "\u0f71",
                                                "\U0001d15e",
                                                "\u00e9",
                                                "\U0001f468\u200d\U0001f469",
                                                "\u00a0",
                                                "\u2028",
                                                "123",
                                                "\u0661",
                                                "\xf0\x9f",
                                                "\x80"};
  return mutate_text(input, kWords, max_bytes, random);
}

}  // namespace qwen::fuzz
