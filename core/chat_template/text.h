// Text that knows, for each of its bytes, whether it stands literally in the template or came from
// somewhere else (the messages, the tools, a number): only the former may hold special tokens.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace qwen::jinja {

class Text {
 public:
  // A stretch of equal provenance: from the end of the one before to `end`.
  struct Run {
    std::size_t end;
    bool from_template;
  };

  Text() = default;
  Text(std::string bytes, bool from_template);

  const std::string& bytes() const { return bytes_; }
  const std::vector<Run>& runs() const { return runs_; }
  std::size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }

  void append(std::string_view bytes, bool from_template);
  void append(const Text& other) { append(other, 0, other.size()); }
  // Bytes [begin, end) of the other text, with their provenance. `other` must not be *this.
  void append(const Text& other, std::size_t begin, std::size_t end);
  Text slice(std::size_t begin, std::size_t end) const;
  // The same provenance over other bytes; the sizes must be equal.
  Text with_bytes(std::string bytes) const;

 private:
  void add_run(std::size_t end, bool from_template);

  std::string bytes_;
  std::vector<Run> runs_;  // `end` ascending, neighbours differ
};

}  // namespace qwen::jinja
