// The program: finds the command, parses its options, runs it, and turns what goes wrong into one
// line and an exit code.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "core/error.h"
#include "tools/qwen/command.h"
#include "tools/qwen/interrupt.h"
#include "tools/qwen/suggest.h"
#include "tools/qwen/version.h"

namespace qwen::cli {
namespace {

struct Entry {
  std::unique_ptr<Command> command;
  std::unique_ptr<Parser> parser;
};

// Commands of the contract that this version does not have.
const std::vector<std::string>& commands_to_come() {
  static const std::vector<std::string> kNames = {"serve", "pull"};
  return kNames;
}

std::vector<Entry> make_entries() {
  std::vector<Entry> entries;
  for (auto& command : make_commands()) {
    auto parser = std::make_unique<Parser>(command->name(), command->summary());
    command->declare(*parser);
    entries.push_back({std::move(command), std::move(parser)});
  }
  return entries;
}

std::string overview(const std::vector<Entry>& entries) {
  std::string text =
      "qwen runs Qwen2 and Qwen2.5 models.\n\n"
      "Usage: qwen [run] [MODEL] [PROMPT] [OPTIONS]\n"
      "       qwen COMMAND [OPTIONS]\n\n"
      "MODEL is a .gguf file; the environment variable QWEN_MODEL can name it too. Without any, "
      "or\n"
      "as `default`, it is the small model that is part of the program.\n\n"
      "Commands:\n";
  for (const Entry& entry : entries) {
    std::string name = "  " + entry.command->name();
    name.resize(14, ' ');
    text += name + entry.command->summary() + "\n";
  }
  return text + "\n`qwen COMMAND --help` lists its options.\n";
}

// The command stands among the options as the first argument that is none and no value of one. It
// is taken out of `args`; without one it is `run`.
std::string take_command(const std::vector<Entry>& entries, std::vector<std::string>& args) {
  const auto takes_value = [&](const std::string& arg) {
    return std::any_of(entries.begin(), entries.end(),
                       [&](const Entry& e) { return e.parser->takes_value(e.parser->full(arg)); });
  };
  for (std::size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--cross-check") {
      args.erase(args.begin() + static_cast<std::ptrdiff_t>(i));
      return "cross-check";
    }
    if (args[i] == "--") break;
    if (args[i].starts_with('-') && args[i] != "-") {
      if (takes_value(args[i])) ++i;
      continue;
    }
    const std::string word = args[i];
    const auto& later = commands_to_come();
    const bool known = std::find(later.begin(), later.end(), word) != later.end() ||
                       std::any_of(entries.begin(), entries.end(),
                                   [&](const Entry& e) { return e.command->name() == word; });
    if (!known) break;
    args.erase(args.begin() + static_cast<std::ptrdiff_t>(i));
    return word;
  }
  return "run";
}

void check_built(const std::string& name) {
  const auto& later = commands_to_come();
  if (std::find(later.begin(), later.end(), name) == later.end()) return;
  usage_error("'" + name + "' is not built yet", "qwen --help lists what is there");
}

// A mistyped command and a prompt of one word are taken for a model: the error about the missing
// file gets a suggestion.
void suggest(ErrorInfo& info, const std::vector<Entry>& entries,
             const std::vector<std::string>& args) {
  if (info.code != "file_not_found") return;
  std::vector<std::string> names = commands_to_come();
  for (const Entry& entry : entries) names.push_back(entry.command->name());
  const std::string meant = nearest(info.file, names);
  if (!meant.empty()) {
    info.hint = "did you mean the command `qwen " + meant + "`?";
  } else if (info.file == args.front()) {
    info.hint += "; a prompt goes after -p";
  }
}

void dispatch(std::vector<std::string> args, const std::vector<Entry>& entries, Console& console) {
  std::vector<std::string> plain = args;
  std::erase(plain, "--json");
  if (plain.size() == 1 && (plain[0] == "--help" || plain[0] == "-h" || plain[0] == "help")) {
    console.write(overview(entries));
    return;
  }
  if (plain == std::vector<std::string>{"--version"}) {
    std::replace(args.begin(), args.end(), plain[0], std::string("version"));
  }
  const std::string name = take_command(entries, args);
  const bool json = std::find(args.begin(), args.end(), "--json") != args.end();
  console.configure("auto", false, false, json);
  check_built(name);
  const Entry& entry = *std::find_if(entries.begin(), entries.end(),
                                     [&](const Entry& e) { return e.command->name() == name; });
  console.configure("auto", false, false, entry.parser->wants_json(args));
  if (entry.parser->wants_help(args)) {
    console.write(entry.parser->help());
    return;
  }
  entry.parser->parse(args);
  entry.command->run(console);
}

int run_program(const std::vector<std::string>& args) {
  Console console;
  const auto fail = [&](const ErrorInfo& info) {
    try {
      console.bar("");
      console.error(info);
    } catch (const std::exception&) {
      // Standard output cannot be written; the line on standard error is out already.
    }
    return static_cast<int>(info.exit);
  };
  std::vector<Entry> entries;
  try {
    entries = make_entries();
    dispatch(args, entries, console);
    return static_cast<int>(Exit::kDone);
  } catch (const Finished& finished) {
    return static_cast<int>(finished.exit);
  } catch (const Error& error) {
    ErrorInfo info = error.info();
    suggest(info, entries, args);
    if (info.exit == Exit::kModel && info.hint.empty() && !info.file.empty()) {
      info.hint = "the file is damaged or was made by a faulty converter";
    }
    return fail(info);
  } catch (const std::bad_alloc&) {
    return fail({.exit = Exit::kOutOfMemory,
                 .code = "out_of_memory",
                 .message = "out of memory",
                 .hint = "a smaller -c needs less"});
  } catch (const std::exception& error) {
    return fail({.exit = Exit::kFailed, .code = "internal", .message = error.what()});
  }
}

// A standard stream that is closed must not become the model or a trace. Reading finds nothing, and
// writing fails as it did.
void fill_standard_streams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) < 0) open("/dev/null", O_RDONLY);  // takes the lowest free number: fd
  }
}

}  // namespace
}  // namespace qwen::cli

int main(int argc, char** argv) {
  qwen::cli::fill_standard_streams();
  qwen::cli::install_signal_handlers();
  return qwen::cli::run_program({argv + 1, argv + argc});
}
