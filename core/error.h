// The one exception type of the project. Bad input and a bad environment throw it; it is caught
// once, in the command line. Programmer errors are asserts.
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <string>

namespace qwen {

// Process exit codes (the command line's contract).
enum class Exit : int {
  kDone = 0,
  kFailed = 1,
  kUsage = 2,
  kModel = 3,  // the model or the device cannot be used
  kOutOfMemory = 4,
  kContext = 5,  // the prompt does not fit the context
  kNetwork = 6,
};

// What went wrong, to what, with the numbers. Empty fields are left out when printed.
struct ErrorInfo {
  Exit exit = Exit::kFailed;
  std::string code = {};     // stable snake_case identifier, e.g. "truncated_header"
  std::string message = {};  // one line: what happened, to what, expected and got
  std::string hint = {};     // what to do about it
  std::string file = {};
  std::optional<std::uint64_t> offset = {};  // byte offset in the file
  std::string key = {};                      // metadata key
  std::string tensor = {};                   // tensor name
};

class Error : public std::exception {
 public:
  explicit Error(ErrorInfo info) : info_(std::move(info)) {}
  const char* what() const noexcept override { return info_.message.c_str(); }
  const ErrorInfo& info() const { return info_; }
  // Fills in the file of an error thrown by code that did not know it.
  void set_file(std::string file) {
    if (info_.file.empty()) info_.file = std::move(file);
  }

 private:
  ErrorInfo info_;
};

}  // namespace qwen
