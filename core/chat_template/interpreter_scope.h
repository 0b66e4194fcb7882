// The guards that the parts of the interpreter hold while they run.
#pragma once

#include "core/chat_template/interpreter.h"

namespace qwen::jinja {

class Interpreter::Enter {
 public:
  Enter(Interpreter& interpreter, Location at) : interpreter_(interpreter) {
    interpreter.guard_.at = at;
    interpreter.guard_.charge(1);
    if (interpreter.depth_ >= kMaxRunDepth) {
      interpreter.guard_.too_deep("evaluation nested too deeply");
    }
    ++interpreter.depth_;
  }
  ~Enter() { --interpreter_.depth_; }
  Enter(const Enter&) = delete;
  Enter& operator=(const Enter&) = delete;

 private:
  Interpreter& interpreter_;
};

class Interpreter::Inner {
 public:
  explicit Inner(Interpreter& interpreter) : interpreter_(interpreter) {
    interpreter.scopes_.emplace_back();
  }
  ~Inner() { interpreter_.scopes_.pop_back(); }
  Inner(const Inner&) = delete;
  Inner& operator=(const Inner&) = delete;

 private:
  Interpreter& interpreter_;
};

}  // namespace qwen::jinja
