// Mutations of GGUF files that know their parts.
#pragma once

#include "tests/fuzz/target.h"

namespace qwen::fuzz {

// One to three changes: fields set to boundary values and to each other's, pairs and infos removed,
// repeated and swapped, texts replaced, bytes changed, the file cut. The data section stays aligned
// when the head grows or shrinks, so that most files stay nearly valid.
Bytes mutate_gguf(const Bytes& input, std::size_t max_bytes, Random& random);

// The malformed files and the valid controls that are no larger than 64 KiB.
std::vector<Bytes> gguf_seeds();

}  // namespace qwen::fuzz
