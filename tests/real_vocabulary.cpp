#include "tests/real_vocabulary.h"

#include <cstdlib>

#include "loader/vocabulary.h"

namespace qwen {

std::optional<RealVocabulary> load_real_vocabulary() {
  const char* path = std::getenv("QWEN_REAL_MODEL");
  if (path == nullptr) return std::nullopt;
  const auto gguf = std::make_shared<Gguf>(Gguf::parse(open_file(path)));
  TokenizerData data = read_tokenizer(*gguf);
  return RealVocabulary{{std::move(data.tokens), std::move(data.types), std::move(data.merges)},
                        gguf};
}

}  // namespace qwen
