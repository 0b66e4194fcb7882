// A value that the user may have set, and where it came from.
#pragma once

#include <string>
#include <utility>

namespace qwen::cli {

inline constexpr const char* kBuiltIn = "built in";
inline constexpr const char* kFromFile = "file";
inline constexpr const char* kFromOption = "option";

template <class T>
struct Setting {
  T value{};
  std::string source = kBuiltIn;  // or "option", "environment QWEN_TEMP", "file"

  // By an option or the environment.
  bool chosen() const { return source != kBuiltIn && source != kFromFile; }
  bool from_option() const { return source == kFromOption; }
  void set(T new_value, std::string new_source) {
    value = std::move(new_value);
    source = std::move(new_source);
  }
};

}  // namespace qwen::cli
