#include "tools/qwen/command.h"

namespace qwen::cli {

Commands make_commands() {
  Commands commands;
  commands.push_back(make_run());
  commands.push_back(make_score());
  commands.push_back(make_cross_check());
  commands.push_back(make_bench());
  commands.push_back(make_inspect());
  commands.push_back(make_tokenize());
  commands.push_back(make_detokenize());
  commands.push_back(make_template());
  commands.push_back(make_devices());
  commands.push_back(make_completion());
  commands.push_back(make_version());
  return commands;
}

}  // namespace qwen::cli
