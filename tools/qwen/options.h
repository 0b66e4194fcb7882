// Options that several commands share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/qwen/console.h"
#include "tools/qwen/parser.h"
#include "tools/qwen/setting.h"

namespace qwen::cli {

struct OutputOptions {
  bool json = false;
  bool quiet = false;
  bool verbose = false;
  Setting<std::string> color{"auto"};

  void declare(Parser& parser);
  void apply(Console& console) const;
};

// Which model, on which device.
struct ModelOptions {
  Setting<std::string> model;  // -m, or QWEN_MODEL
  std::vector<std::string> words;
  Setting<std::string> device{"auto"};
  Setting<std::string> isa;
  Setting<std::string> kv;           // of the key/value cache; empty: what suits the device
  Setting<std::string> level;        // of --device cuda; empty: the backend's own
  Setting<std::int64_t> threads;     // 0: as many as usable_cores() says
  Setting<std::int64_t> ctx;         // 0: what the model was trained for
  Setting<std::int64_t> layers{-1};  // -1: all
  Setting<std::int64_t> gpu_layers{-1};
  bool exact = false;
  bool sync = false;

  // MODEL only.
  void declare_model(Parser& parser);
  // MODEL and all about how it is run.
  void declare(Parser& parser);

  // The path of the model, "default" if none is given; then a line says so. `words` keeps what is
  // left of the arguments, at most `n_words` of them. A single argument can be the model or, if
  // there is no other text (`has_text`) and it is more than a word, the text. Throws a usage error
  // for too many arguments.
  std::string take_model(Console& console, std::size_t n_words = 0, bool has_text = false);
};

}  // namespace qwen::cli
