#include "core/tokenizer/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <cstdint>
#include <limits>
#include <new>

#include "core/error.h"
#include "core/tokenizer/unicode_classes.h"
#include "core/tokenizer/utf8.h"

namespace qwen {
namespace {

// "pre_tokenizer" of Qwen2's tokenizer.json. Every character matches some alternative.
constexpr std::string_view kPattern = R"((?i:'s|'t|'re|'ve|'m|'ll|'d))"
                                      R"(|[^\r\n\p{L}\p{N}]?\p{L}+)"
                                      R"(|\p{N})"
                                      R"(| ?[^\s\p{L}\p{N}]+[\r\n]*)"
                                      R"(|\s*[\r\n]+)"
                                      R"(|\s+(?!\S))"
                                      R"(|\s+)";

[[noreturn]] void fail(const char* what, int status) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(status, text.data(), text.size());
  throw Error({.code = "pre_split",
               .message = std::string(what) + ": PCRE2 error " + std::to_string(status) + ", " +
                          reinterpret_cast<const char*>(text.data())});
}

// One old character of each class (Unicode 5 or before: of that class in every PCRE2) for each
// length in UTF-8. Rows: CharClass.
constexpr std::string_view kStandIns[4][3] = {
    {"\xC3\x97", "\xE2\x80\x94", "\xF0\x9D\x84\x80"},  // U+00D7, U+2014, U+1D100
    {"\xC3\xA9", "\xE4\xB8\x80", "\xF0\xA0\x80\x80"},  // U+00E9, U+4E00, U+20000
    {"\xC2\xB2", "\xE2\x91\xA0", "\xF0\x90\x84\x87"},  // U+00B2, U+2460, U+10107
    {"\xC2\xA0", "\xE2\x80\x83", "\xF0\x9D\x84\x80"},  // U+00A0, U+2003, (none has four bytes)
};

// A letter that the expression names: it folds to s, so that 'ſ is a contraction.
constexpr char32_t kLongS = 0x17F;

// `text` with each character above ASCII replaced by the stand-in of its class: the classes are
// then the reference's (Unicode 16), whatever tables PCRE2 has. PCRE2 10.42 differs in 9,393 code
// points: it has Unicode 14, and takes U+180E for a space. The bytes keep their places, so offsets
// hold for both.
std::string_view classified(std::string_view text, std::string& buffer) {
  std::size_t i = skip_ascii(text, 0);
  if (i == text.size()) return text;
  buffer.assign(text);
  CharClassRun run = char_class_run(0);
  while (i < text.size()) {
    const char32_t code_point = utf8_decode(text.data() + i);
    const std::size_t length = utf8_length(text[i]);
    if (code_point != kLongS) {
      if (code_point < run.first || code_point > run.last) run = char_class_run(code_point);
      kStandIns[static_cast<std::size_t>(run.char_class)][length - 2].copy(&buffer[i], length);
    }
    i = skip_ascii(text, i + length);
  }
  return buffer;
}

}  // namespace

void PcreDeleter::operator()(pcre2_code* code) const { pcre2_code_free(code); }
void PcreDeleter::operator()(pcre2_match_context* context) const {
  pcre2_match_context_free(context);
}
void PcreDeleter::operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }

Pretokenizer::Pretokenizer() {
  int status = 0;
  PCRE2_SIZE at = 0;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(kPattern.data()), kPattern.size(),
                            PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &status, &at, nullptr));
  if (!code_) fail("the pre-split expression does not compile", status);
  // Refused where PCRE2 was built without JIT or the system forbids it: matching is then slower.
  static_cast<void>(pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE));
  limits_.reset(pcre2_match_context_create(nullptr));
  if (!limits_) throw std::bad_alloc();
  // Each step of backtracking counts, and a run of spaces is stepped back over once: with the
  // default limit, ten million, 20 MB of spaces would be an error.
  constexpr std::uint32_t kNoLimit = std::numeric_limits<std::uint32_t>::max();
  pcre2_set_match_limit(limits_.get(), kNoLimit);
  pcre2_set_depth_limit(limits_.get(), kNoLimit);
  pcre2_set_heap_limit(limits_.get(), kNoLimit);
}

PieceSplitter::PieceSplitter(const Pretokenizer& pretokenizer)
    : pretokenizer_(pretokenizer), match_(pcre2_match_data_create(1, nullptr)) {
  if (!match_) throw std::bad_alloc();
}

void PieceSplitter::start(std::string_view text) {
  text_ = text;
  subject_ = classified(text, buffer_);
  pos_ = 0;
}

bool PieceSplitter::next(std::string_view& piece) {
  if (pos_ == text_.size()) return false;
  const int status = pcre2_match(
      pretokenizer_.code_.get(), reinterpret_cast<PCRE2_SPTR>(subject_.data()), subject_.size(),
      pos_, PCRE2_NO_UTF_CHECK, match_.get(), pretokenizer_.limits_.get());
  // No match is an error like any other: it would mean that a character fits no alternative.
  if (status < 0) fail("splitting the text", status);
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match_.get());
  if (ends[1] <= pos_) fail("splitting the text", PCRE2_ERROR_INTERNAL);
  piece = text_.substr(pos_, ends[1] - pos_);
  pos_ = ends[1];
  return true;
}

}  // namespace qwen
