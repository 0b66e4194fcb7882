#include "core/stop_filter.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace qwen {

StopFilter::StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {
  assert(std::none_of(stops_.begin(), stops_.end(), [](const auto& s) { return s.empty(); }));
}

std::string StopFilter::push(std::string_view text) {
  if (stopped_) return {};
  pending_ += text;
  std::size_t first_end = std::string::npos;
  std::size_t begin = 0;
  for (const std::string& stop : stops_) {
    const std::size_t at = pending_.find(stop);
    if (at == std::string::npos) continue;
    const std::size_t end = at + stop.size();
    if (end < first_end || (end == first_end && at < begin)) {
      first_end = end;
      begin = at;
    }
  }
  if (first_end != std::string::npos) {
    stopped_ = true;
    pending_.resize(begin);
    return std::exchange(pending_, {});
  }
  const std::size_t sure = pending_.size() - held_bytes();
  std::string out = pending_.substr(0, sure);
  pending_.erase(0, sure);
  return out;
}

std::string StopFilter::finish() { return std::exchange(pending_, {}); }

// The longest end of the pending text that begins a stop string.
std::size_t StopFilter::held_bytes() const {
  std::size_t held = 0;
  const std::string_view pending = pending_;
  for (const std::string& stop : stops_) {
    for (std::size_t n = std::min(stop.size() - 1, pending.size()); n > held; --n) {
      if (pending.ends_with(std::string_view(stop).substr(0, n))) held = n;
    }
  }
  return held;
}

}  // namespace qwen
