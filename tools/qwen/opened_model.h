// A model file that is open and checked, its weights not yet placed anywhere: enough for tokens,
// templates and inspection.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/tokenizer.h"
#include "loader/vocabulary.h"
#include "loader/weights.h"
#include "tools/qwen/console.h"

namespace qwen::cli {

class OpenedModel {
 public:
  // `path`: of a file, or "default": the model that is part of the program. Throws Error
  // (Exit::kModel) naming the file.
  OpenedModel(std::string path, Console& console);

  const std::string& path() const { return path_; }
  GgufModelFile& file() { return *file_; }
  const Gguf& gguf() const { return file_->gguf(); }

  // The tokenizer's data; model "no_vocab" has none. Checked on the first call, as tokenizer() is.
  const TokenizerData& tokenizer_data();
  // Throws Error if the file has no vocabulary, or one that cannot be used.
  const Tokenizer& tokenizer();
  bool has_tokenizer() { return tokenizer_data().model != "no_vocab"; }
  // Tokens that end an answer: the file's eos, eot and eom, and <|im_end|> and <|endoftext|>.
  std::vector<std::int32_t> stop_ids();

  // Whatever looks at the file's bytes goes through here: see read_unchanged().
  template <class F>
  auto reading(const F& read) const {
    return read_unchanged(*gguf().source(), read);
  }

  // As the file says; empty if it does not.
  const std::string& name() const { return name_; }
  const std::string& arch() const { return arch_; }
  // The mixture that the file says it is ("Q4_K_M"), else the type of most of its bytes.
  const std::string& file_type() const { return file_type_; }
  std::int64_t n_params() const;
  std::uint64_t weight_bytes() const;

  // {"file","name","arch","n_params","file_type"}
  Json description() const;

 private:
  std::string text_value(std::string_view key) const;
  std::string read_file_type() const;

  std::string path_;
  Console& console_;
  std::optional<GgufModelFile> file_;
  std::string name_, arch_, file_type_;
  std::optional<TokenizerData> tokenizer_data_;
  std::optional<Tokenizer> tokenizer_;
};

}  // namespace qwen::cli
