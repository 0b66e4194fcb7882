#include "tools/qwen/candidates.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace qwen::cli {

double log_sum_exp(std::span<const float> logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float l : logits) sum += std::exp(l - most);
  return most + std::log(sum);
}

std::vector<std::int32_t> likeliest(std::span<const float> logits, std::size_t k) {
  std::vector<std::int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto end = ids.begin() + static_cast<std::ptrdiff_t>(std::min(k, ids.size()));
  std::partial_sort(ids.begin(), end, ids.end(), [&](std::int32_t a, std::int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  });
  ids.erase(end, ids.end());
  return ids;
}

}  // namespace qwen::cli
