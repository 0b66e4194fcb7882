// 32-bit words of the 16 rows of a panel (panels.h), one row per lane, and 16 floats: one vector or
// two. The arithmetic is the compiler's for vectors; words_avx512.h and words_avx2.h add what it
// has no operator for.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace qwen::cpu {

// Of an instruction set:
//   Word, Int, Float                                vectors of 32-bit numbers, of one size
//   static Word load_quarters(const std::byte* p, std::size_t stride)
//                                                   16 bytes each at p, p + stride and so on
//   static void transpose_quarters(Word (&w)[4])    in each 16 bytes, word j of w[i] and word i of
//                                                   w[j] change places
//   static Float halves(const std::byte* p)         F16 numbers at p, as many as Float has
//   static Float low_halves(Word w)                 of the lower 16 bits of each word, as F16
//   static Word lookup(Word w, const std::int8_t* levels)   levels[b] of each byte b < 16 of w
//   static Word spread(Word w, int k, char value)   `value` in byte i where bit 4 k + i of w is set
template <class Arch>
struct WordVector;

template <class Arch>
struct Floats {
  using Vector = WordVector<Arch>;
  static constexpr int kVectors = 64 / sizeof(typename Vector::Float);

  typename Vector::Float v[kVectors];

  Floats operator*(const Floats& other) const {
    Floats to;
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) to.v[i] = v[i] * other.v[i];
    return to;
  }
  Floats operator-() const {
    Floats to;
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) to.v[i] = -v[i];
    return to;
  }
  static Floats halves(const std::byte* p) {
    Floats to;
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) to.v[i] = Vector::halves(p + 32 / kVectors * i);
    return to;
  }
};

template <class Arch>
struct Words {
  using Vector = WordVector<Arch>;
  static constexpr int kVectors = Floats<Arch>::kVectors;

  typename Vector::Word v[kVectors];

  static Words load(const std::byte* p) {
    Words to;
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) std::memcpy(&to.v[i], p + 64 / kVectors * i, 64 / kVectors);
    return to;
  }
  // Stores words 0 to 3 of 16 rows, which begin `stride` bytes after each other: of each word, the
  // rows beside each other.
  static void store_transposed(const std::byte* rows, std::size_t stride, std::byte* to) {
    constexpr int kQuarters = 4 / kVectors;
#pragma GCC unroll 2
    for (int h = 0; h < kVectors; ++h) {
      typename Vector::Word words[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        words[i] = Vector::load_quarters(rows + (4 * kQuarters * h + i) * stride, 4 * stride);
      }
      Vector::transpose_quarters(words);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        std::memcpy(to + 64 * i + 64 / kVectors * h, &words[i], sizeof words[i]);
      }
    }
  }
  Words operator>>(int n) const {
    return each([n](auto a) { return a >> n; });
  }
  Words operator<<(int n) const {
    return each([n](auto a) { return a << n; });
  }
  Words operator&(std::uint32_t bits) const {
    return each([bits](auto a) { return a & bits; });
  }
  Words operator^(std::uint32_t bits) const {
    return each([bits](auto a) { return a ^ bits; });
  }
  Words operator|(const Words& other) const {
    Words to;
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) to.v[i] = v[i] | other.v[i];
    return to;
  }
  // Of each byte, which is below 16.
  Words lookup(const std::int8_t (&levels)[16]) const {
    return each([&levels](auto a) { return Vector::lookup(a, levels); });
  }

  // `value` in byte i where bit 4 k + i is set, else 0.
  Words spread(int k, char value) const {
    return each([k, value](auto a) { return Vector::spread(a, k, value); });
  }

  Floats<Arch> low_halves() const {
    return to_floats([](auto a) { return Vector::low_halves(a); });
  }
  Floats<Arch> unsigned_values() const {  // below 2^31
    return to_floats([](auto a) { return floats(std::bit_cast<typename Vector::Int>(a)); });
  }
  // Byte i as a signed number.
  Floats<Arch> signed_bytes(int i) const {
    return to_floats([i](auto a) {
      return floats(std::bit_cast<typename Vector::Int>(a << (24 - 8 * i)) >> 24);
    });
  }

 private:
  static typename Vector::Float floats(typename Vector::Int v) {
    return __builtin_convertvector(v, typename Vector::Float);
  }
  template <class F>
  Words each(F f) const {
    Words to;
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) to.v[i] = f(v[i]);
    return to;
  }
  template <class F>
  Floats<Arch> to_floats(F f) const {
    Floats<Arch> to;
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) to.v[i] = f(v[i]);
    return to;
  }
};

}  // namespace qwen::cpu
