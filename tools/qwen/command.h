// The commands of the program. Each is one file: its options, and what it does.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "tools/qwen/console.h"
#include "tools/qwen/parser.h"

namespace qwen::cli {

// Thrown by a command that has said all and ends with this code.
struct Finished {
  Exit exit;
};

class Command {
 public:
  virtual ~Command() = default;
  virtual std::string name() const = 0;
  virtual std::string summary() const = 0;  // half a line for `qwen --help`
  virtual void declare(Parser& parser) = 0;
  // After the options are set. Throws Error or Finished.
  virtual void run(Console& console) = 0;
};

using Commands = std::vector<std::unique_ptr<Command>>;

// All of them, `run` first.
Commands make_commands();

std::unique_ptr<Command> make_run();
std::unique_ptr<Command> make_score();
std::unique_ptr<Command> make_tokenize();
std::unique_ptr<Command> make_detokenize();
std::unique_ptr<Command> make_template();
std::unique_ptr<Command> make_inspect();
std::unique_ptr<Command> make_devices();
std::unique_ptr<Command> make_bench();
std::unique_ptr<Command> make_cross_check();
std::unique_ptr<Command> make_version();
std::unique_ptr<Command> make_completion();

}  // namespace qwen::cli
