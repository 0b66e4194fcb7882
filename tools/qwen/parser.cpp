#include "tools/qwen/parser.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>

#include "core/error.h"
#include "tools/qwen/numbers.h"
#include "tools/qwen/suggest.h"

namespace qwen::cli {
namespace {

// Short options of several letters, known from llama.cpp, which CLI11 would take apart ("-ngl 99"
// as "-n gl").
constexpr std::array<std::pair<std::string_view, std::string_view>, 20> kLongForms = {{
    {"-ngl", "--gpu-layers"},
    {"-sys", "--system"},
    {"-cnv", "--conversation"},
    {"-st", "--single-turn"},
    {"-no-cnv", "--raw"},
    {"-dev", "--device"},
    {"-fa", "--flash-attn"},
    {"-ub", "--ubatch-size"},
    {"-tb", "--threads-batch"},
    {"-sm", "--split-mode"},
    {"-ts", "--tensor-split"},
    {"-mg", "--main-gpu"},
    {"-ctk", "--cache-type-k"},
    {"-ctv", "--cache-type-v"},
    {"-hf", "--hf-repo"},
    {"-hff", "--hf-file"},
    {"-mu", "--model-url"},
    {"-sp", "--special"},
    {"-sysf", "--system-prompt-file"},
    {"-mli", "--multiline-input"},
}};

constexpr std::size_t kHelpColumn = 32;

// CLI11 2.1 cannot be told the usage line.
class UsageFormatter : public CLI::Formatter {
 public:
  explicit UsageFormatter(std::string usage) : usage_(std::move(usage)) {}
  std::string make_usage(const CLI::App*, std::string) const override { return usage_ + "\n"; }

 private:
  std::string usage_;
};

std::vector<std::string> split(const std::string& names) {
  std::vector<std::string> out;
  for (std::size_t begin = 0; begin <= names.size();) {
    const std::size_t end = std::min(names.find(',', begin), names.size());
    out.push_back(names.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

std::string first_long(const std::string& names) {
  for (const std::string& name : split(names)) {
    if (name.starts_with("--")) return name;
  }
  return split(names).front();
}

// "--top-k" -> "QWEN_TOP_K"
std::string environment_name(const std::string& names) {
  std::string out = "QWEN_";
  for (const char c : first_long(names).substr(2)) {
    out += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return out;
}

}  // namespace

Parser::Parser(const std::string& command, const std::string& summary)
    : app_(summary, "qwen " + command) {
  app_.set_help_flag("-h,--help", "print this and exit");
  app_.get_formatter()->column_width(kHelpColumn);
  options_["-h"] = options_["--help"] = false;
}

void Parser::add(const std::string& names, const Setter& setter, const std::string& help,
                 bool environment, const char* type) {
  for (const std::string& name : split(names)) {
    options_[name] = true;
    refused_.erase(name);
  }
  const std::string variable = environment ? environment_name(names) : "";
  app_.add_option(names,
                  CLI::callback_t([setter, name = first_long(names)](const CLI::results_t& values) {
                    setter(values.front(), kFromOption, name);
                    return true;
                  }),
                  variable.empty() ? help : help + " [" + variable + "]")
      ->type_name(type);
  if (!environment) return;
  environment_.push_back([setter, variable] {
    const char* value = std::getenv(variable.c_str());
    if (value != nullptr && *value != '\0') setter(value, "environment " + variable, variable);
  });
}

void Parser::flag(const std::string& names, bool& on, const std::string& help) {
  for (const std::string& name : split(names)) options_[name] = false;
  app_.add_flag_callback(
      names, [&on] { on = true; }, help);
}

void Parser::text(const std::string& names, Setting<std::string>& target, const std::string& help) {
  add(
      names,
      [&target](const auto& text, const auto& source, const auto&) { target.set(text, source); },
      help, true, "TEXT");
}

void Parser::text_option(const std::string& names, Setting<std::string>& target,
                         const std::string& help) {
  add(
      names,
      [&target](const auto& text, const auto& source, const auto&) { target.set(text, source); },
      help, false, "TEXT");
}

void Parser::texts(const std::string& names, std::vector<std::string>& target,
                   const std::string& help) {
  for (const std::string& name : split(names)) options_[name] = true;
  app_.add_option(names, CLI::callback_t([&target](const CLI::results_t& values) {
                    target = values;
                    return true;
                  }),
                  help)
      ->type_name("TEXT ...")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void Parser::choice(const std::string& names, Setting<std::string>& target,
                    const std::vector<std::string>& allowed, const std::string& help) {
  choices_[first_long(names)] = allowed;
  std::string list;
  for (const std::string& value : allowed) list += (list.empty() ? "" : "|") + value;
  const Setter setter = [&target, allowed, list](const auto& text, const auto& source,
                                                 const auto& name) {
    if (std::find(allowed.begin(), allowed.end(), text) == allowed.end()) {
      const std::string meant = nearest(text, allowed);
      usage_error(name + " is '" + text + "', expected " + list,
                  meant.empty() ? "" : "did you mean " + meant + "?");
    }
    target.set(text, source);
  };
  add(names, setter, help, true, list.c_str());
}

void Parser::integer(const std::string& names, Setting<std::int64_t>& target, IntRange range,
                     const std::string& help) {
  add(
      names,
      [&target, range](const auto& text, const auto& source, const auto& name) {
        target.set(parse_integer(name, text, range), source);
      },
      help, true, "N");
}

void Parser::real(const std::string& names, Setting<double>& target, RealRange range,
                  const std::string& help) {
  add(
      names,
      [&target, range](const auto& text, const auto& source, const auto& name) {
        target.set(parse_real(name, text, range), source);
      },
      help, true, "X");
}

void Parser::integers(const std::string& names, Setting<std::vector<std::int64_t>>& target,
                      IntRange range, const std::string& help) {
  add(
      names,
      [&target, range](const auto& text, const auto& source, const auto& name) {
        target.set(parse_integers(name, text, range), source);
      },
      help, false, "N,N,...");
}

void Parser::words(const std::vector<std::string>& names, std::vector<std::string>& target,
                   const std::string& help) {
  word_names_ = names;
  words_ = &target;
  std::string usage;
  for (const std::string& name : names) usage += " [" + name + "]";
  app_.formatter(std::make_shared<UsageFormatter>("Usage: " + app_.get_name() + usage +
                                                  " [OPTIONS]\n" + help));
  app_.get_formatter()->column_width(kHelpColumn);
}

void Parser::refuse(const std::string& names, const std::string& reason) {
  for (const std::string& name : split(names)) refused_[name] = reason;
}

void Parser::parse(const std::vector<std::string>& args) {
  std::vector<std::string> options;
  for (const Token& token : scan(args, true)) {
    if (token.kind == Token::Kind::kOption) {
      options.push_back(token.name);
      if (token.has_value) options.push_back(token.value);
    } else if (words_ == nullptr || words_->size() == word_names_.size()) {
      usage_error("unexpected argument '" + token.name + "'",
                  "put a text that contains spaces in quotes");
    } else {
      words_->push_back(token.name);
    }
  }
  for (const auto& read : environment_) read();
  std::reverse(options.begin(), options.end());  // CLI11 takes them from the back
  try {
    app_.parse(options);
  } catch (const CLI::ArgumentMismatch& error) {
    // "--prompt: At Most 1 required but received 2": all else about arguments is checked above.
    const std::string text = error.what();
    usage_error(text.substr(0, text.find(':')) + " is given more than once");
  } catch (const CLI::ParseError& error) {
    usage_error(error.what(), app_.get_name() + " --help");
  }
}

bool Parser::wants_json(const std::vector<std::string>& args) const {
  const auto tokens = scan(args, false);
  return std::any_of(tokens.begin(), tokens.end(), [](const Token& t) {
    return t.kind == Token::Kind::kOption && t.name == "--json";
  });
}

bool Parser::wants_help(const std::vector<std::string>& args) const {
  const auto tokens = scan(args, false);
  return std::any_of(tokens.begin(), tokens.end(), [](const Token& t) {
    return t.kind == Token::Kind::kOption && (t.name == "--help" || t.name == "-h");
  });
}

bool Parser::takes_value(std::string_view name) const {
  const auto at = options_.find(name);
  return at != options_.end() && at->second;
}

bool Parser::knows(std::string_view name) const {
  return options_.contains(name) || refused_.contains(name);
}

std::vector<std::string> Parser::option_names() const {
  std::vector<std::string> names;
  for (const auto& [name, takes] : options_) names.push_back(name);
  return names;
}

// `strict`: what is wrong throws; else it is passed over.
std::vector<Parser::Token> Parser::scan(const std::vector<std::string>& args, bool strict) const {
  std::vector<Token> tokens;
  bool only_words = false;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    if (only_words || !arg.starts_with('-') || arg == "-") {
      tokens.push_back({Token::Kind::kWord, arg, {}});
      continue;
    }
    if (arg == "--") {
      only_words = true;
      continue;
    }
    for (const std::string& single : expand(arg)) {
      Token token = option(single, strict);
      if (takes_value(token.name) && !token.has_value) {
        if (i + 1 == args.size()) {
          if (strict) usage_error(token.name + " needs a value");
          break;
        }
        token.value = args[++i];
        token.has_value = true;
      }
      tokens.push_back(std::move(token));
    }
  }
  return tokens;
}

std::string Parser::full(const std::string& arg) {
  for (const auto& [brief, long_form] : kLongForms) {
    if (arg == brief || arg.starts_with(std::string(brief) + "=")) {
      return std::string(long_form) + arg.substr(brief.size());
    }
  }
  return arg;
}

// Makes "-n5" two arguments ("-n=5" in the form of option()) and "-qv" two flags; all else stays.
std::vector<std::string> Parser::expand(const std::string& arg) const {
  if (arg.starts_with("--") || arg.size() <= 2) return {arg};
  if (const std::string long_form = full(arg); long_form != arg) return {long_form};
  const std::string letter = arg.substr(0, 2);
  const bool number =
      std::isdigit(static_cast<unsigned char>(arg[2])) != 0 || (arg[2] == '-' && arg.size() > 3);
  if (takes_value(letter) && (number || arg[2] == '=')) {
    return {letter + "=" + arg.substr(arg[2] == '=' ? 3 : 2)};
  }
  std::vector<std::string> flags;
  for (const char c : arg.substr(1)) {
    const std::string name = std::string("-") + c;
    if (!options_.contains(name) || takes_value(name)) return {arg};
    flags.push_back(name);
  }
  return flags;
}

Parser::Token Parser::option(const std::string& arg, bool strict) const {
  const std::size_t equals = arg.find('=');
  Token token{Token::Kind::kOption, arg.substr(0, equals), {}};
  if (equals != std::string::npos) {
    token.value = arg.substr(equals + 1);
    token.has_value = true;
  }
  if (!strict) return token;
  if (const auto reason = refused_.find(token.name); reason != refused_.end()) {
    usage_error(token.name + ": " + reason->second, app_.get_name() + " --help");
  }
  if (!options_.contains(token.name)) unknown(token.name);
  if (token.has_value && !takes_value(token.name)) usage_error(token.name + " takes no value");
  return token;
}

void Parser::unknown(const std::string& name) const {
  // A long name with one dash is a slip too: -tmep.
  const bool one_dash = name.size() > 2 && !name.starts_with("--");
  const std::string meant = nearest(one_dash ? "-" + name : name, option_names());
  usage_error("unknown option " + name + (meant.empty() ? "" : "; did you mean " + meant + "?"),
              meant.empty() ? app_.get_name() + " --help" : "");
}

}  // namespace qwen::cli
