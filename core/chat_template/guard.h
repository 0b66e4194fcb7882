// What one rendering may use up, and where in the template it is: every operation whose cost grows
// with its operands charges for it here first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/error.h"

namespace qwen::jinja {

// Counted from 1; the column counts code points.
struct Location {
  int line = 1;
  int column = 1;
};

// A template larger than this is refused before it is read; the largest in use have about 20 KiB.
inline constexpr std::size_t kMaxSourceBytes = std::size_t{1} << 20;
// Parentheses, brackets, prefix operators and blocks inside each other.
inline constexpr int kMaxNesting = 100;
// Height of one expression's tree: also bounds chains such as a + b + c ..., which nest to the
// left.
inline constexpr int kMaxExpressionDepth = 300;
// Evaluation inside evaluation, over all macro calls: bounds the C++ stack.
inline constexpr int kMaxRunDepth = 600;
// Lists in lists, and JSON in JSON.
inline constexpr int kMaxValueDepth = 200;
// Jinja's own sandbox has this bound for range().
inline constexpr int kMaxRange = 100000;

// One unit of work is one step, one list element or 16 bytes of text. Five million take at most 0.4
// s and, kept alive, 120 MB (the slowest of thirty endless templates); the rest of the allowance
// grows with the input.
struct Limits {
  std::uint64_t work = 5'000'000;
  std::size_t text_bytes = std::size_t{16} << 20;  // of any one string, and of the output
};

// A template error: `code` as in core/error.h; the message gets the place in front.
[[noreturn]] void fail_at(Location at, Exit exit, std::string code, const std::string& message,
                          std::string hint);

class Guard {
 public:
  explicit Guard(Limits limits) : work_left_(limits.work), max_text_bytes_(limits.text_bytes) {}

  void charge(std::uint64_t units) {
    if (units > work_left_) out_of_work();
    work_left_ -= units;
  }
  void charge_bytes(std::size_t n) { charge(n / 16); }
  // A string will have n bytes.
  void check_text(std::size_t n) const {
    if (n > max_text_bytes_) text_too_long();
  }
  void charge_text(std::size_t n) {
    check_text(n);
    charge(1 + n / 16);
  }

  // The template cannot be applied to these values (Jinja raises an exception here).
  [[noreturn]] void fail(const std::string& message) const;
  // Jinja could do this, this interpreter does not.
  [[noreturn]] void unsupported(const std::string& message) const;
  [[noreturn]] void too_deep(const std::string& message) const;

  Location at;

 private:
  [[noreturn]] void out_of_work() const;
  [[noreturn]] void text_too_long() const;

  std::uint64_t work_left_;
  std::size_t max_text_bytes_;
};

}  // namespace qwen::jinja
