// The options of one command: CLI11 behind a front that names what it refuses, suggests the option
// that was meant, and reads the environment.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tools/qwen/setting.h"
#include "tools/qwen/usage_error.h"

namespace qwen::cli {

// What a number may be. A bound that is `open` is itself not allowed.
struct IntRange {
  std::int64_t low;
  std::int64_t high;
};
struct RealRange {
  double low;
  double high;
  bool low_open = false;
};

// `names` is CLI11's form: "-n,--predict,--n-predict". Options with a Setting are also read from
// the environment: QWEN_ and the first long name, such as QWEN_PREDICT. All targets must outlive
// the parser.
class Parser {
 public:
  Parser(const std::string& command, const std::string& summary);

  void flag(const std::string& names, bool& on, const std::string& help);
  void text(const std::string& names, Setting<std::string>& target, const std::string& help);
  // As text(), but not read from the environment: prompts and files.
  void text_option(const std::string& names, Setting<std::string>& target, const std::string& help);
  void texts(const std::string& names, std::vector<std::string>& target, const std::string& help);
  void choice(const std::string& names, Setting<std::string>& target,
              const std::vector<std::string>& allowed, const std::string& help);
  void integer(const std::string& names, Setting<std::int64_t>& target, IntRange range,
               const std::string& help);
  void real(const std::string& names, Setting<double>& target, RealRange range,
            const std::string& help);
  // Comma-separated numbers.
  void integers(const std::string& names, Setting<std::vector<std::int64_t>>& target,
                IntRange range, const std::string& help);
  // Arguments that are no options, at most as many as there are names.
  void words(const std::vector<std::string>& names, std::vector<std::string>& target,
             const std::string& help);
  // An option of other programs that has no meaning here, unless it is declared later on.
  void refuse(const std::string& names, const std::string& reason);
  void footer(const std::string& text) { app_.footer(text); }

  // Throws Error (Exit::kUsage).
  void parse(const std::vector<std::string>& args);

  // True if --json stands among the options (not as the value of one).
  bool wants_json(const std::vector<std::string>& args) const;
  bool wants_help(const std::vector<std::string>& args) const;
  // True if it is known and takes a value.
  bool takes_value(std::string_view name) const;
  bool knows(std::string_view name) const;
  // The registered form of an argument that is an option: "-ngl" -> "--gpu-layers".
  static std::string full(const std::string& arg);
  std::vector<std::string> option_names() const;
  std::string help() const { return app_.help(); }
  // Of the last option with a fixed set of values: name -> values (for shell completion).
  const std::map<std::string, std::vector<std::string>>& choices() const { return choices_; }

 private:
  struct Token {
    enum class Kind { kOption, kWord } kind;
    std::string name;   // of an option, as registered; else the word
    std::string value;  // of an option that takes one
    bool has_value = false;
  };
  using Setter = std::function<void(const std::string& text, const std::string& source,
                                    const std::string& shown_name)>;

  void add(const std::string& names, const Setter& setter, const std::string& help,
           bool environment, const char* type);
  std::vector<Token> scan(const std::vector<std::string>& args, bool strict) const;
  Token option(const std::string& arg, bool strict) const;
  std::vector<std::string> expand(const std::string& arg) const;
  [[noreturn]] void unknown(const std::string& name) const;

  CLI::App app_;
  std::map<std::string, bool, std::less<>> options_;  // name -> takes a value
  std::map<std::string, std::string, std::less<>> refused_;
  std::map<std::string, std::vector<std::string>> choices_;
  std::vector<std::function<void()>> environment_;
  std::vector<std::string> word_names_;
  std::vector<std::string>* words_ = nullptr;
};

}  // namespace qwen::cli
