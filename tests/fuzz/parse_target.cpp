// The GGUF parser, and all that it hands out.
#include "core/error.h"
#include "tests/fuzz/gguf_mutator.h"
#include "tests/hostile_load.h"

namespace qwen::fuzz {

void run(std::span<const std::byte> input) {
  try {
    // A copy of exactly the input's size, so that AddressSanitizer sees a step beyond it.
    testing::parse_and_touch(from_memory(Bytes(input.begin(), input.end()), "fuzz.gguf"));
  } catch (const Error& error) {
    const ErrorInfo& e = error.info();
    require(e.exit == Exit::kModel && !e.code.empty() && e.file == "fuzz.gguf", "an error's facts");
    require(e.offset || !e.key.empty() || !e.tensor.empty(), "an error names a place");
  }
}

std::vector<Bytes> seeds() { return gguf_seeds(); }

Bytes mutate(const Bytes& input, std::size_t max_bytes, Random& random) {
  return mutate_gguf(input, max_bytes, random);
}

}  // namespace qwen::fuzz
