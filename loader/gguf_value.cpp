#include "loader/gguf_value.h"

#include <array>

namespace qwen {
namespace {

struct TypeRow {
  std::string_view name;
  std::uint64_t size;
};
constexpr std::array<TypeRow, kValueTypes> kTypes = {{
    {"u8", 1},
    {"i8", 1},
    {"u16", 2},
    {"i16", 2},
    {"u32", 4},
    {"i32", 4},
    {"f32", 4},
    {"bool", 1},
    {"string", 0},
    {"array", 0},
    {"u64", 8},
    {"i64", 8},
    {"f64", 8},
}};

}  // namespace

std::string_view to_string(ValueType type) { return kTypes[static_cast<std::size_t>(type)].name; }

std::uint64_t size_of(ValueType type) { return kTypes[static_cast<std::size_t>(type)].size; }

std::vector<std::string_view> GgufArray::strings() const {
  assert(type == ValueType::kString);
  std::vector<std::string_view> views;
  views.reserve(count);
  const std::byte* at = bytes.data();
  for (std::uint64_t i = 0; i < count;
       ++i) {  // the lengths were validated when the file was parsed
    std::uint64_t length;
    std::memcpy(&length, at, sizeof length);
    at += sizeof length;
    views.emplace_back(reinterpret_cast<const char*>(at), length);
    at += length;
  }
  return views;
}

}  // namespace qwen
