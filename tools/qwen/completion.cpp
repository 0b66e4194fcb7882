// qwen completion: a script that completes commands and options in a shell.
#include <algorithm>
#include <map>

#include "tools/qwen/command.h"

namespace qwen::cli {
namespace {

struct Entry {
  std::string summary;
  std::vector<std::string> options;
  std::map<std::string, std::vector<std::string>> choices;
};

std::map<std::string, Entry> all_options() {
  std::map<std::string, Entry> out;
  for (const auto& command : make_commands()) {
    Parser parser(command->name(), command->summary());
    command->declare(parser);
    out[command->name()] = {command->summary(), parser.option_names(), parser.choices()};
  }
  return out;
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

std::string bash(const std::map<std::string, Entry>& commands) {
  std::vector<std::string> names;
  std::string cases;
  for (const auto& [name, entry] : commands) {
    names.push_back(name);
    cases += "    " + name + ") options='" + joined(entry.options) + "' ;;\n";
  }
  std::string values;
  for (const auto& [option, allowed] : commands.at("run").choices) {
    values += "    " + option + ") COMPREPLY=($(compgen -W '" + joined(allowed) +
              "' -- \"$word\")); return ;;\n";
  }
  return "# bash completion of qwen: source <(qwen completion bash)\n"
         "_qwen() {\n"
         "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} options\n"
         "  case $before in\n" +
         values +
         "  esac\n"
         "  case ${COMP_WORDS[1]} in\n" +
         cases + "    *) options='" + joined(commands.at("run").options) +
         "' ;;\n"
         "  esac\n"
         "  if [[ $word == -* ]]; then\n"
         "    COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n"
         "  elif [[ $COMP_CWORD -eq 1 ]]; then\n"
         "    COMPREPLY=($(compgen -W '" +
         joined(names) +
         "' -- \"$word\") $(compgen -f -- \"$word\"))\n"
         "  else\n"
         "    COMPREPLY=($(compgen -f -- \"$word\"))\n"
         "  fi\n"
         "}\n"
         "complete -o filenames -F _qwen qwen\n";
}

std::string zsh(const std::map<std::string, Entry>& commands) {
  return "#compdef qwen\n"
         "# zsh completion of qwen: source <(qwen completion zsh)\n"
         "autoload -U +X bashcompinit && bashcompinit\n" +
         bash(commands);
}

std::string fish(const std::map<std::string, Entry>& commands) {
  std::string out = "# fish completion of qwen: qwen completion fish | source\n";
  std::vector<std::string> names;
  for (const auto& [name, entry] : commands) names.push_back(name);
  for (const auto& [name, entry] : commands) {
    out += "complete -c qwen -n 'not __fish_seen_subcommand_from " + joined(names) + "' -a " +
           name + " -d '" + entry.summary + "'\n";
    for (const std::string& option : entry.options) {
      const bool is_long = option.starts_with("--");
      const auto values = entry.choices.find(option);
      out += "complete -c qwen -n '__fish_seen_subcommand_from " + name + "' " +
             (is_long ? "-l " : "-s ") + option.substr(is_long ? 2 : 1) +
             (values == entry.choices.end() ? "" : " -xa '" + joined(values->second) + "'") + "\n";
    }
  }
  return out;
}

class Completion : public Command {
 public:
  std::string name() const override { return "completion"; }
  std::string summary() const override { return "a completion script for bash, zsh or fish"; }

  void declare(Parser& parser) override {
    parser.words({"SHELL"}, words_, "SHELL is bash, zsh or fish.");
  }

  void run(Console& console) override {
    const std::string shell = words_.empty() ? "" : words_.front();
    if (shell == "bash") {
      console.write(bash(all_options()));
    } else if (shell == "zsh") {
      console.write(zsh(all_options()));
    } else if (shell == "fish") {
      console.write(fish(all_options()));
    } else {
      usage_error(shell.empty() ? "no shell given" : "unknown shell '" + shell + "'",
                  "qwen completion bash|zsh|fish");
    }
  }

 private:
  std::vector<std::string> words_;
};

}  // namespace

std::unique_ptr<Command> make_completion() { return std::make_unique<Completion>(); }

}  // namespace qwen::cli
