// All that the program does with a model file up to the first step, in one call, for tests and
// fuzzers.
#pragma once

#include <memory>

#include "loader/gguf.h"
#include "loader/source.h"

namespace qwen::testing {

// Parses the file, reads all that an accepted one offers, and stops the process where a size, a
// shape or a place in it does not hold. Throws Error where the parser refuses the file.
Gguf parse_and_touch(std::shared_ptr<const Source> source);

// The whole load: parser, tokenizer, chat template (rendered once), model on the scalar reference,
// and one step of two tokens. Throws Error (naming the file) where any of them refuses.
void load_and_step(std::shared_ptr<const Source> source);

}  // namespace qwen::testing
