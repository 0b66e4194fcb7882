// The malformed files that the loader was written against, and valid ones that look odd, all made
// in memory. The numbers are those of the list in the project's notes on GGUF.
#pragma once

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "tests/fixtures/gguf_writer.h"

namespace qwen::testing {

using fixtures::Bytes;
using fixtures::GgufWriter;

struct HostileCase {
  int number;
  std::string name;
  std::function<Bytes()> file;
  std::string code;          // of the refusal
  std::string subject = {};  // the key or tensor that it names; empty: a byte offset instead
};
inline void PrintTo(const HostileCase& c, std::ostream* out) { *out << c.number << " " << c.name; }

// The valid file that all others differ from: a qwen2 model of one layer, width 32, with tokenizer
// and template, about 20 KiB.
GgufWriter valid_model();

// Single-byte pairs "0", "1" ... after the others.
void add_tiny_keys(GgufWriter& w, std::uint64_t n);

// That file after a change of the writer.
std::function<Bytes()> edited(std::function<void(GgufWriter&)> edit);

// Cases 1-61: header, pairs, tensor infos, data section.
std::vector<HostileCase> layout_cases();
// Cases 62-92: hyper-parameters, tokenizer, template, splits.
std::vector<HostileCase> model_cases();
// Both.
std::vector<HostileCase> hostile_cases();

struct ValidCase {
  std::string name;
  std::function<Bytes()> file;
};
inline void PrintTo(const ValidCase& c, std::ostream* out) { *out << c.name; }

std::vector<ValidCase> valid_cases();

}  // namespace qwen::testing
