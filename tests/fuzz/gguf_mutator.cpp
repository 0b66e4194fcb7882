#include "tests/fuzz/gguf_mutator.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "tests/fuzz/gguf_layout.h"
#include "tests/hostile_cases.h"

namespace qwen::fuzz {
namespace {

constexpr std::size_t kAlignment = 32;
constexpr std::size_t kLargestSeed = 64 << 10;

constexpr std::array<std::string_view, 20> kTexts = {"general.architecture",
                                                     "general.alignment",
                                                     "qwen2",
                                                     "qwen2.block_count",
                                                     "qwen2.context_length",
                                                     "qwen2.attention.key_length",
                                                     "qwen2.attention.value_length",
                                                     "qwen2.rope.dimension_count",
                                                     "qwen2.rope.scaling.type",
                                                     "qwen2.vocab_size",
                                                     "split.count",
                                                     "split.no",
                                                     "tokenizer.ggml.model",
                                                     "tokenizer.ggml.scores",
                                                     "no_vocab",
                                                     "tokenizer.ggml.eos_token_id",
                                                     "general.sampling.temp",
                                                     "blk.1.attn_q.weight",
                                                     "output.weight",
                                                     "blk.0.attn_norm.weight"};

std::uint64_t get(const Bytes& file, const Field& field) {
  std::uint64_t value = 0;
  std::memcpy(&value, file.data() + field.pos, field.width);
  return value;
}

std::uint64_t boundary_value(const Bytes& file, const GgufLayout& layout, const Field& field,
                             Random& random) {
  const std::uint64_t now = get(file, field);
  const std::uint64_t left = file.size() - field.pos - field.width;
  const std::array<std::uint64_t, 8> near = {now + 1, now - 1,  now * 2,  now / 2,
                                             left,    left + 1, left / 8, file.size()};
  switch (random.below(5)) {
    case 0:
      return random.below(18);
    case 1:  // powers of two and their neighbours
      return (std::uint64_t{1} << random.below(64)) + random.below(3) - 1;
    case 2:
      return ~std::uint64_t{0} << random.below(64);
    case 3:
      return get(file, layout.fields[random.below(layout.fields.size())]);
    default:
      return near[random.below(near.size())];
  }
}

void set_field(Bytes& file, const GgufLayout& layout, Random& random) {
  if (layout.fields.empty()) return;
  const Field& field = layout.fields[random.below(layout.fields.size())];
  const std::uint64_t value = boundary_value(file, layout, field, random);
  std::memcpy(file.data() + field.pos, &value, field.width);
}

// Puts `with` in the place of a range of the head, and moves the data section to its next aligned
// place.
void replace(Bytes& file, const GgufLayout& layout, Range range, const Bytes& with) {
  const auto at = [](std::size_t n) { return static_cast<std::ptrdiff_t>(n); };
  const std::size_t data =
      std::min(file.size(), (layout.head_end + kAlignment - 1) / kAlignment * kAlignment);
  Bytes out(file.begin(), file.begin() + at(range.begin));
  out.insert(out.end(), with.begin(), with.end());
  out.insert(out.end(), file.begin() + at(range.end), file.begin() + at(layout.head_end));
  if (data < file.size()) {
    out.resize((out.size() + kAlignment - 1) / kAlignment * kAlignment);
    out.insert(out.end(), file.begin() + at(data), file.end());
  }
  file = std::move(out);
}

void add_to(Bytes& file, std::size_t pos, std::uint64_t n) {
  const std::uint64_t value = get(file, {pos, 8}) + n;
  std::memcpy(file.data() + pos, &value, sizeof value);
}

void change_parts(Bytes& file, const GgufLayout& layout, Random& random) {
  const bool pairs = random.below(2) == 0;
  const std::vector<Range>& parts = pairs ? layout.pairs : layout.infos;
  const std::size_t count_pos = pairs ? 16 : 8;
  if (parts.empty()) return;
  const Range a = parts[random.below(parts.size())], b = parts[random.below(parts.size())];
  const auto bytes_of = [&](Range r) {
    return Bytes(file.begin() + static_cast<std::ptrdiff_t>(r.begin),
                 file.begin() + static_cast<std::ptrdiff_t>(r.end));
  };
  switch (random.below(4)) {
    case 0:  // b goes, and may be missed
      replace(file, layout, b, {});
      if (random.below(4) != 0) add_to(file, count_pos, ~std::uint64_t{0});
      break;
    case 1: {  // a stands before b as well
      Bytes both = bytes_of(a);
      const Bytes second = bytes_of(b);
      both.insert(both.end(), second.begin(), second.end());
      replace(file, layout, b, both);
      if (random.below(4) != 0) add_to(file, count_pos, 1);
      break;
    }
    default:  // a in the place of b
      replace(file, layout, b, bytes_of(a));
  }
}

void change_text(Bytes& file, const GgufLayout& layout, Random& random) {
  if (layout.texts.empty()) return;
  const Range text = layout.texts[random.below(layout.texts.size())];
  Bytes with;
  if (random.below(2) == 0) {
    with = to_bytes(kTexts[random.below(kTexts.size())]);
  } else {
    with.assign(file.begin() + static_cast<std::ptrdiff_t>(text.begin),
                file.begin() + static_cast<std::ptrdiff_t>(text.end));
    with = mutate_bytes(with, with.size() + 64, random);
  }
  Bytes whole;
  fixtures::append(whole, static_cast<std::uint64_t>(with.size()));
  whole.insert(whole.end(), with.begin(), with.end());
  replace(file, layout, {text.begin - 8, text.end}, whole);
}

void cut_or_extend(Bytes& file, const GgufLayout& layout, Random& random) {
  switch (random.below(3)) {
    case 0:
      file.resize(random.below(file.size() + 1));
      break;
    case 1:
      file.resize(std::min(file.size(), layout.head_end + random.below(64)));
      break;
    default:
      file.resize(file.size() + random.below(64));
  }
}

}  // namespace

Bytes mutate_gguf(const Bytes& input, std::size_t max_bytes, Random& random) {
  Bytes out = input;
  for (std::uint64_t n = 1 + random.below(3); n > 0; --n) {
    const GgufLayout layout = read_layout(out);
    const std::uint64_t kind = random.below(16);
    if (kind < 8) {
      set_field(out, layout, random);
    } else if (kind < 11) {
      change_parts(out, layout, random);
    } else if (kind < 14) {
      change_text(out, layout, random);
    } else if (kind == 14) {
      cut_or_extend(out, layout, random);
    } else {
      out = mutate_bytes(out, max_bytes, random);
    }
  }
  out.resize(std::min(out.size(), max_bytes));
  return out;
}

std::vector<Bytes> gguf_seeds() {
  std::vector<Bytes> all;
  const auto add = [&](Bytes file) {
    if (file.size() <= kLargestSeed) all.push_back(std::move(file));
  };
  for (const auto& c : testing::valid_cases()) add(c.file());
  for (const auto& c : testing::hostile_cases()) {
    if (c.code != "template_limit") add(c.file());  // those take as long as they are allowed to
  }
  return all;
}

}  // namespace qwen::fuzz
