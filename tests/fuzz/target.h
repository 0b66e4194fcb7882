// What a fuzz target is made of. Each target is one file that defines these functions; it is linked
// with engine.cpp to run under libFuzzer, or with replay.cpp, a plain program for any compiler.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "tests/fixtures/gguf_writer.h"
#include "tests/fixtures/random.h"
#include "tests/require.h"

namespace qwen::fuzz {

using fixtures::Bytes;
using fixtures::Random;

// One execution. Refusals are caught; what must never happen ends the process.
void run(std::span<const std::byte> input);

// Inputs to start from, made in memory.
std::vector<Bytes> seeds();

// A changed input of at most `max_bytes`, in the way of the target's format.
Bytes mutate(const Bytes& input, std::size_t max_bytes, Random& random);

// For targets:
using testing::require;
// A mutation of any bytes: changed, inserted, removed and repeated stretches.
Bytes mutate_bytes(const Bytes& input, std::size_t max_bytes, Random& random);
// The same for texts, made of the words of a format.
Bytes mutate_text(const Bytes& input, std::span<const std::string_view> words,
                  std::size_t max_bytes, Random& random);
Bytes to_bytes(std::string_view text);
std::vector<Bytes> text_seeds(std::initializer_list<std::string_view> texts);
std::string_view to_text(std::span<const std::byte> bytes);

}  // namespace qwen::fuzz
