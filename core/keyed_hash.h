// A hash under a random key, for tables of what a stranger chose: whoever does not know the key
// cannot choose names that collide. Nothing that a program puts out may depend on its values.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <random>
#include <string_view>

namespace qwen {

// SipHash-1-3 (Aumasson and Bernstein 2012), little-endian. Immutable.
class KeyedHash {
 public:
  // A key of its own, from the system. Throws std::runtime_error if the system has none.
  KeyedHash() {
    std::random_device random;
    for (std::uint64_t& word : key_) word = std::uint64_t{random()} << 32 | random();
  }
  // For tests.
  constexpr KeyedHash(std::uint64_t key_0, std::uint64_t key_1) : key_{key_0, key_1} {}

  std::uint64_t operator()(std::string_view text) const {
    State state(key_);
    const char* p = text.data();
    std::size_t left = text.size();
    for (std::uint64_t word; left >= sizeof word; p += sizeof word, left -= sizeof word) {
      std::memcpy(&word, p, sizeof word);
      state.take(word);
    }
    std::uint64_t tail = 0;
    if (left > 0) std::memcpy(&tail, p, left);
    state.take(tail | std::uint64_t{text.size()} << 56);
    return state.result();
  }

  // Of a number: two multiplications, as in wyhash (Wang 2019).
  std::uint64_t operator()(std::uint64_t number) const {
    const Product first = multiply(number ^ key_[0], key_[1]);
    const Product second = multiply(first.low ^ key_[0], first.high ^ key_[1]);
    return second.low ^ second.high;
  }

 private:
  struct Product {
    std::uint64_t low, high;
  };
  static Product multiply(std::uint64_t a, std::uint64_t b) {
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(a) * b;
    return {static_cast<std::uint64_t>(product), static_cast<std::uint64_t>(product >> 64)};
  }

  struct State {
    explicit State(const std::array<std::uint64_t, 2>& key)
        : a(key[0] ^ 0x736f6d6570736575u),
          b(key[1] ^ 0x646f72616e646f6du),
          c(key[0] ^ 0x6c7967656e657261u),
          d(key[1] ^ 0x7465646279746573u) {}

    void round() {
      a += b;
      c += d;
      b = std::rotl(b, 13) ^ a;
      d = std::rotl(d, 16) ^ c;
      a = std::rotl(a, 32) + d;
      c += b;
      d = std::rotl(d, 21) ^ a;
      b = std::rotl(b, 17) ^ c;
      c = std::rotl(c, 32);
    }
    void take(std::uint64_t word) {
      d ^= word;
      round();
      a ^= word;
    }
    std::uint64_t result() {
      c ^= 0xff;
      for (int i = 0; i < 3; ++i) round();
      return a ^ b ^ c ^ d;
    }

    std::uint64_t a, b, c, d;
  };

  std::array<std::uint64_t, 2> key_;
};

}  // namespace qwen
