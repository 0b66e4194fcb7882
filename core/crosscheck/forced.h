// Forced mode: before each op of the path its inputs are replaced by the oracle's own, so that no
// op gets what an earlier one got wrong: ops downstream of not-a-number or of nonsense, which in
// shadow mode make nothing but that of it, are judged, too.
#pragma once

#include <cstddef>

#include "core/backend.h"
#include "core/crosscheck/scratch.h"
#include "core/crosscheck/shadow.h"
#include "core/crosscheck/sides.h"

namespace qwen::crosscheck {

class Forced : public Observer {
 public:
  // `shadow` judges the ops, and must outlive it.
  Forced(const Sides& sides, Shadow& shadow) : sides_(sides), shadow_(shadow) {}

  // After Shadow::begin(), with the same plan.
  void begin(const Plan& oracle_plan);
  void before(const Op& op, const Tap& tap) override;
  void after(const Op& op, const Tap& tap) override;

 private:
  Sides sides_;
  Shadow& shadow_;
  Plan plan_;             // the oracle's own values: it is run, op by op
  std::size_t next_ = 0;  // node of plan_
  Scratch scratch_;
  Op kept_;  // the oracle's op, with the values it had before the shadow saw it
};

}  // namespace qwen::crosscheck
