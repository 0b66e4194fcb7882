#include "loader/gguf_value.h"

#include <array>
#include <string>

#include "core/error.h"

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
  std::span<const std::byte> left = bytes;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint64_t length = 0;
    if (left.size() >= sizeof length) std::memcpy(&length, left.data(), sizeof length);
    // The lengths were validated when the file was parsed, but the file may be another one by now.
    if (left.size() < sizeof length || length > left.size() - sizeof length) {
      throw Error({.exit = Exit::kModel,
                   .code = "file_changed",
                   .message = "file was changed while in use: string " + std::to_string(i) +
                              " of an array no longer fits into it",
                   .hint = "wait until the download or conversion has ended"});
    }
    const std::byte* text = left.data() + sizeof length;
    views.emplace_back(reinterpret_cast<const char*>(text), length);
    left = left.subspan(sizeof length + length);
  }
  return views;
}

}  // namespace qwen
