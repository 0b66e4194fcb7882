// Metadata values of a GGUF file, as views into its bytes.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

namespace qwen {

// Numbered as in the file.
enum class ValueType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
inline constexpr std::uint32_t kValueTypes = 13;

// "u8" ... "f64", "bool", "string", "array".
std::string_view to_string(ValueType type);

// Bytes of a number or bool in the file; 0 for strings and arrays, which have no fixed size.
std::uint64_t size_of(ValueType type);

// An array of numbers, bools or strings (never of arrays). It owns nothing.
struct GgufArray {
  ValueType type = ValueType::kU8;  // of the elements
  std::uint64_t count = 0;
  std::span<const std::byte> bytes = {};  // the elements as they lie in the file, not aligned

  // The elements of a string array, in one pass; the views live as long as the file's Source.
  // Throws Error (file_changed) if they no longer fit.
  std::vector<std::string_view> strings() const;

  // A copy of the elements of an array of numbers; T must be the C++ type of `type`.
  template <class T>
  std::vector<T> numbers() const;
};

// The alternative's index is the type's number in the file.
using GgufValue = std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t,
                               std::uint32_t, std::int32_t, float, bool, std::string_view,
                               GgufArray, std::uint64_t, std::int64_t, double>;
static_assert(std::variant_size_v<GgufValue> == kValueTypes);

inline ValueType type_of(const GgufValue& value) { return static_cast<ValueType>(value.index()); }

// The ValueType of a C++ type.
template <class T>
inline constexpr ValueType kValueTypeOf =
    static_cast<ValueType>(GgufValue(std::in_place_type<T>).index());

template <class T>
std::vector<T> GgufArray::numbers() const {
  assert(type == kValueTypeOf<T> && bytes.size() == count * sizeof(T));
  std::vector<T> values(count);
  if (count > 0) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace qwen
