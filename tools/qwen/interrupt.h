// Ctrl-C. While an answer is being made the first one ends it and keeps what was printed; a second
// within a second, or one at any other time, leaves the program with 130. SIGTERM leaves with 143.
#pragma once

#include "core/backend.h"

namespace qwen::cli {

// Also makes a closed standard output an error of write() instead of a signal.
void install_signal_handlers();

// True if the answer shall end.
bool interrupted();

// While one lives, an answer is being made.
class AnswerScope {
 public:
  AnswerScope();
  ~AnswerScope();
  AnswerScope(const AnswerScope&) = delete;
  AnswerScope& operator=(const AnswerScope&) = delete;
};

// Thrown out of a step.
struct Interrupted {};

// Ends a long step between two ops, and passes everything on to another observer (may be null).
class InterruptObserver : public Observer {
 public:
  explicit InterruptObserver(Observer* next) : next_(next) {}
  void before(const Op& op, const Tap& tap) override {
    if (interrupted()) throw Interrupted{};
    if (next_ != nullptr) next_->before(op, tap);
  }
  void after(const Op& op, const Tap& tap) override {
    if (next_ != nullptr) next_->after(op, tap);
  }

 private:
  Observer* next_;
};

}  // namespace qwen::cli
