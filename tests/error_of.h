// What an action throws, for tests of refusals.
#pragma once

#include "core/error.h"

namespace qwen {

// The facts of the Error that `action` throws; all empty, the code too, if it throws none.
template <class Action>
ErrorInfo error_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error.info();
  }
  return {};
}

}  // namespace qwen
