// The byte alphabet of GPT-2: every byte has a printable character, so that tokens can be stored as
// text. Bytes 33-126, 161-172 and 174-255 are their own code points; the other 68, ascending, are
// U+0100 + n (space is U+0120, newline U+010A).
#pragma once

#include <array>
#include <cstdint>

namespace qwen {

inline constexpr std::array<char16_t, 256> kByteToCodePoint = [] {
  std::array<char16_t, 256> table{};
  char16_t next = 0x100;
  for (char16_t byte = 0; byte < 256; ++byte) {
    const bool own = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    table[byte] = own ? byte : next++;
  }
  return table;
}();

// Code point -> byte; -1 where the alphabet has no such character.
inline constexpr std::array<std::int16_t, 0x144> kCodePointToByte = [] {
  std::array<std::int16_t, 0x144> table{};
  table.fill(-1);
  for (int byte = 0; byte < 256; ++byte) {
    table[kByteToCodePoint[static_cast<unsigned>(byte)]] = static_cast<std::int16_t>(byte);
  }
  return table;
}();

}  // namespace qwen
