// The whole load: parser, tokenizer, template, model, and one step of what was accepted.
#include "core/error.h"
#include "tests/fuzz/gguf_mutator.h"
#include "tests/hostile_load.h"

namespace qwen::fuzz {

void run(std::span<const std::byte> input) {
  try {
    testing::load_and_step(from_memory(Bytes(input.begin(), input.end()), "fuzz.gguf"));
  } catch (const Error& error) {
    const ErrorInfo& e = error.info();
    require(!e.code.empty() && !e.message.empty() && e.file == "fuzz.gguf", "an error's facts");
  }
}

std::vector<Bytes> seeds() { return gguf_seeds(); }

Bytes mutate(const Bytes& input, std::size_t max_bytes, Random& random) {
  return mutate_gguf(input, max_bytes, random);
}

}  // namespace qwen::fuzz
