// Ends a stream of text at a stop string, wherever the borders of its pieces lie.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qwen {

// The stop string whose end comes first in the text ends it; among those that end at the same byte
// the longest counts. So the result does not depend on how the text was cut into pieces.
class StopFilter {
 public:
  // No stop string may be empty. None at all: everything passes.
  explicit StopFilter(std::vector<std::string> stops);

  // The text that is now certain to stand before any stop string. What may be the beginning of one
  // is held back: less than the longest stop string.
  std::string push(std::string_view text);
  // The end of the stream: what was held back, unless a stop string was found.
  std::string finish();
  // A stop string was found: from now on nothing passes.
  bool stopped() const { return stopped_; }

 private:
  std::size_t held_bytes() const;

  std::vector<std::string> stops_;
  std::string pending_;
  bool stopped_ = false;
};

}  // namespace qwen
