// Mishaps: faults that no formula expresses, because they lie in how an op is run: in the wrong
// order, on memory that something else uses, not at all. Each emulates at the op boundary what a
// real backend would do.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>
#include <tuple>
#include <vector>

#include "core/backend.h"

namespace qwen::crosscheck {

enum class Mishap {
  kNone,
  kRace,         // some elements of the output come out otherwise each time
  kOverlap,      // the output lies on the input, and half of it is written before the input is read
  kStaleInput,   // the op runs before its input is there, and gets that of the step before
  kNotLaunched,  // beyond kMostRows rows nothing runs and nobody says so
  kOldPosition,  // the positions come a step too late
  kMixedTokens,  // with several tokens, the first two rows are swapped
};

// Runs ops with a mishap, and remembers what it needs from run to run.
class MishapRunner {
 public:
  static constexpr std::int64_t kMostRows = 8;

  explicit MishapRunner(Backend& backend) : backend_(backend) {}

  // Forgets all that was run.
  void reset() { before_.clear(); }
  // Runs `op`. False if there was no occasion for the mishap: then the op was run as it should be.
  bool run(Mishap mishap, const Op& op, const Tap& tap);

 private:
  // A tap, a layer and a number of rows: what a step runs in the same memory each time.
  using Place = std::tuple<std::string_view, int, std::int64_t>;
  struct Before {
    const std::byte* out = nullptr;       // where the run's own output lies
    std::vector<std::byte> input, older;  // of the last run there, and of the one before
  };

  bool race(const Op& op, const Tap& tap);
  bool overlap(const Op& op, const Tap& tap, const Before& before);
  bool run_on_old(const Op& op, const Tap& tap, std::string_view operand, Before& before);
  bool mixed_tokens(const Op& op, const Tap& tap);
  // The op, with another tensor of these bytes as its `operand`.
  void run_with(const Op& op, const Tap& tap, std::string_view operand,
                const std::vector<std::byte>& bytes);

  Backend& backend_;
  std::map<Place, Before> before_;
  std::uint32_t n_races_ = 0;
};

}  // namespace qwen::crosscheck
