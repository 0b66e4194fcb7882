// The pre-split of Qwen2: text -> pieces that byte-pair encoding never merges across.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

// PCRE2's own types, so that its header stays in the .cpp.
struct pcre2_real_code_8;
struct pcre2_real_match_context_8;
struct pcre2_real_match_data_8;

namespace qwen {

struct PcreDeleter {
  void operator()(pcre2_real_code_8* code) const;
  void operator()(pcre2_real_match_context_8* context) const;
  void operator()(pcre2_real_match_data_8* data) const;
};

// The compiled expression. Immutable: threads may share it.
class Pretokenizer {
 public:
  Pretokenizer();

 private:
  friend class PieceSplitter;
  std::unique_ptr<pcre2_real_code_8, PcreDeleter> code_;
  std::unique_ptr<pcre2_real_match_context_8, PcreDeleter> limits_;
};

// Walks over the pieces of one text after another. One per thread; the pretokenizer must outlive
// it.
class PieceSplitter {
 public:
  explicit PieceSplitter(const Pretokenizer& pretokenizer);

  // `text` must be valid UTF-8 and live until the last next().
  void start(std::string_view text);
  // The next piece, in order; false at the end. The pieces together are the text, none is empty.
  // Throws Error (kFailed) when PCRE2 gives up.
  bool next(std::string_view& piece);

 private:
  const Pretokenizer& pretokenizer_;
  std::unique_ptr<pcre2_real_match_data_8, PcreDeleter> match_;
  std::string_view text_;
  std::string_view subject_;  // what is matched: as long as text_, see classified() in the .cpp
  std::string buffer_;
  std::size_t pos_ = 0;
};

}  // namespace qwen
