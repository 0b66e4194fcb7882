// What lies in the path's buffers between ops: the bytes that the op left there that wrote them
// last. Each op is judged by the inputs that it got; this says whether they are what was made for
// it.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "core/tensor.h"

namespace qwen::crosscheck {

class HandOver {
 public:
  // An op of the path has left in `where` what `copy`, in host memory, holds.
  void wrote(const Tensor& where, const Tensor& copy);
  // What was left in `where`, in host memory until the next wrote(); empty if that is not known of
  // all of it.
  Tensor left(const Tensor& where) const;
  // From now on nothing is known: others than ops have written.
  void forget() { left_.clear(); }

 private:
  // By where they begin on the path; none overlap.
  std::map<const std::byte*, std::vector<std::byte>> left_;
};

}  // namespace qwen::crosscheck
