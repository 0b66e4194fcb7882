// Where the text of a command comes from: -p, -f, an argument, token ids, or standard input.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/qwen/parser.h"
#include "tools/qwen/setting.h"

namespace qwen::cli {

// All bytes of a file ("-": standard input). Throws Error (Exit::kUsage) if it cannot be read.
std::string read_input(const std::string& path);

struct TextOptions {
  Setting<std::string> prompt;
  Setting<std::string> file;
  Setting<std::vector<std::int64_t>> ids;

  void declare_text(Parser& parser);
  void declare_ids(Parser& parser);

  // By an option.
  bool given() const { return prompt.chosen() || file.chosen() || ids.chosen(); }

  struct Input {
    std::string text;
    std::optional<std::vector<std::int32_t>> ids = {};
    bool from_stream = false;  // a file or standard input
  };
  // The one source that was given, with the arguments that are left after the model. Throws a usage
  // error for two sources, for none (`what` is missing then), and for an empty standard input.
  Input read(const std::vector<std::string>& words, const std::string& what) const;
};

}  // namespace qwen::cli
