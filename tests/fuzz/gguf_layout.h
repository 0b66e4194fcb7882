// Where the parts of a GGUF file lie, for a mutator: read without trust, and without complaint
// about what is wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace qwen::fuzz {

// A number in the file: a count, length, type, dimension, offset or value.
struct Field {
  std::size_t pos;
  std::size_t width;  // 1, 2, 4 or 8 bytes
};

struct Range {
  std::size_t begin, end;
};

struct GgufLayout {
  std::vector<Field> fields;
  std::vector<Range> pairs;  // whole pairs and infos, as far as they can be read
  std::vector<Range> infos;
  std::vector<Range> texts;  // the bytes of keys, names and strings
  std::size_t head_end = 0;  // of the last part that could be read
};

GgufLayout read_layout(std::span<const std::byte> file);

}  // namespace qwen::fuzz
