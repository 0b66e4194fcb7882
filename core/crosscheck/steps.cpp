#include "core/crosscheck/steps.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace qwen::crosscheck {

Steps::Steps(std::vector<std::vector<std::int32_t>> texts, std::int64_t n_decode,
             std::int64_t chunk)
    : texts_(std::move(texts)), done_(texts_.size()), chunk_(static_cast<std::size_t>(chunk)) {
  for (const auto& text : texts_) ends_.push_back(text.size() + static_cast<std::size_t>(n_decode));
}

std::vector<TokenInput> Steps::next() {
  std::vector<TokenInput> tokens;
  for (std::size_t s = 0; s < texts_.size(); ++s) {
    const std::size_t end = std::min(texts_[s].size(), done_[s] + chunk_);
    for (; done_[s] < end; ++done_[s]) {
      tokens.push_back({texts_[s][done_[s]], static_cast<std::int32_t>(done_[s]),
                        static_cast<std::int32_t>(s), done_[s] + 1 == texts_[s].size()});
    }
  }
  return tokens;
}

void Steps::append(std::int32_t seq, std::int32_t id) {
  const auto s = static_cast<std::size_t>(seq);
  if (texts_[s].size() < ends_[s]) texts_[s].push_back(id);
}

std::int64_t Steps::n_tokens() const {
  return static_cast<std::int64_t>(std::reduce(ends_.begin(), ends_.end()));
}

}  // namespace qwen::crosscheck
