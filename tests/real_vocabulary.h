// The vocabulary of the real model, for tests that compare with golden/.
#pragma once

#include <memory>
#include <optional>

#include "core/tokenizer/vocabulary.h"

namespace qwen {

struct RealVocabulary {
  Vocabulary vocabulary;             // views into `file`
  std::shared_ptr<const void> file;  // keeps what they point to
};

// From the file that the environment variable QWEN_REAL_MODEL names; nullopt when it is unset.
// Throws Error when the file cannot be read.
std::optional<RealVocabulary> load_real_vocabulary();

}  // namespace qwen
