// Where the program writes. Standard output carries the answer and nothing else; all other lines go
// to standard error.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/error.h"

namespace qwen::cli {

using Json = nlohmann::ordered_json;

class Console {
 public:
  Console();

  // Called once the options are known. `color` is "auto", "always" or "never".
  void configure(std::string_view color, bool quiet, bool verbose, bool json);

  // True if people watch standard error: bars and the lines of the start are for them.
  bool terminal() const { return terminal_; }
  bool quiet() const { return quiet_; }
  bool json() const { return json_; }

  // Writes to standard output at once. False once its reader is gone; that is no error. Throws
  // Error if it cannot be written for another reason.
  bool write(std::string_view text);
  // One JSON document on standard output. Text that is not UTF-8 gets U+FFFD.
  void document(const Json& json);

  // One line on standard error, unless -q.
  void note(const std::string& line);
  // The same, dimmed: the lines around the answer.
  void aside(const std::string& line);
  // Only with -v.
  void detail(const std::string& line);
  // The error and its hint; the JSON document too if --json was given.
  void error(const ErrorInfo& info);

  // Rewrites the last line of a terminal; an empty text clears it.
  void bar(const std::string& line);

 private:
  std::string painted(const char* code, const std::string& text) const;
  void print(const std::string& text) const;

  bool terminal_;
  bool color_ = false;
  bool quiet_ = false;
  bool verbose_ = false;
  bool json_ = false;
  bool bar_shown_ = false;
  bool closed_ = false;  // the reader of standard output is gone
};

}  // namespace qwen::cli
