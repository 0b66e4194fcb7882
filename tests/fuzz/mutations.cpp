#include <algorithm>

#include "tests/fuzz/target.h"

namespace qwen::fuzz {
namespace {

// A stretch [begin, end) of at most 64 bytes.
struct Stretch {
  std::ptrdiff_t begin, end;
};

Stretch some_stretch(const Bytes& input, Random& random) {
  const auto begin = static_cast<std::ptrdiff_t>(random.below(input.size() + 1));
  const auto left = static_cast<std::ptrdiff_t>(input.size()) - begin;
  const auto length = std::min(left, static_cast<std::ptrdiff_t>(1 + random.below(64)));
  return {begin, begin + length};
}

void insert(Bytes& input, std::span<const std::byte> what, Random& random) {
  const auto at = static_cast<std::ptrdiff_t>(random.below(input.size() + 1));
  input.insert(input.begin() + at, what.begin(), what.end());
}

void repeat_stretch(Bytes& input, Random& random) {
  const Stretch s = some_stretch(input, random);
  const Bytes copy(input.begin() + s.begin, input.begin() + s.end);
  for (std::uint64_t n = 1 + random.below(4); n > 0; --n) insert(input, copy, random);
}

void erase_stretch(Bytes& input, Random& random) {
  const Stretch s = some_stretch(input, random);
  input.erase(input.begin() + s.begin, input.begin() + s.end);
}

void change_byte(Bytes& input, Random& random) {
  if (input.empty()) return;
  std::byte& byte = input[random.below(input.size())];
  switch (random.below(3)) {
    case 0:
      byte ^= static_cast<std::byte>(1u << random.below(8));
      break;
    case 1:
      byte = static_cast<std::byte>(random.below(256));
      break;
    default:
      byte = random.below(2) == 0 ? std::byte{0} : std::byte{0xff};
  }
}

}  // namespace

Bytes mutate_bytes(const Bytes& input, std::size_t max_bytes, Random& random) {
  Bytes out = input;
  for (std::uint64_t n = 1 + random.below(4); n > 0; --n) {
    switch (random.below(6)) {
      case 0:
        repeat_stretch(out, random);
        break;
      case 1:
        erase_stretch(out, random);
        break;
      case 2: {
        const Bytes one(1, static_cast<std::byte>(random.below(256)));
        insert(out, one, random);
        break;
      }
      default:
        change_byte(out, random);
    }
  }
  out.resize(std::min(out.size(), max_bytes));
  return out;
}

Bytes mutate_text(const Bytes& input, std::span<const std::string_view> words,
                  std::size_t max_bytes, Random& random) {
  if (random.below(3) == 0) return mutate_bytes(input, max_bytes, random);
  Bytes out = input;
  for (std::uint64_t n = 1 + random.below(3); n > 0; --n) {
    insert(out, to_bytes(words[random.below(words.size())]), random);
    if (random.below(2) == 0) erase_stretch(out, random);
  }
  out.resize(std::min(out.size(), max_bytes));
  return out;
}

std::vector<Bytes> text_seeds(std::initializer_list<std::string_view> texts) {
  std::vector<Bytes> all;
  for (const std::string_view text : texts) all.push_back(to_bytes(text));
  return all;
}

Bytes to_bytes(std::string_view text) {
  const auto* raw = reinterpret_cast<const std::byte*>(text.data());
  return {raw, raw + text.size()};
}

std::string_view to_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace qwen::fuzz
