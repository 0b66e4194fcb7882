// How tokens are chosen: options over the file's suggestions over the family's defaults.
#pragma once

#include <cstdint>
#include <string>

#include "core/sampler.h"
#include "loader/vocabulary.h"
#include "tools/qwen/console.h"
#include "tools/qwen/parser.h"
#include "tools/qwen/setting.h"

namespace qwen::cli {

class SamplingOptions {
 public:
  void declare(Parser& parser);
  // Checks the seed, or draws one if none was given.
  void parse_seed();
  // Takes over what the file suggests where nothing was chosen. Throws Error (Exit::kModel) for a
  // value that is out of range.
  void resolve(const SamplingDefaults& file, const std::string& path);

  SampleParams params() const;
  std::uint64_t seed() const { return seed_; }
  // {"temp","top_k","top_p","min_p","repeat_penalty","seed"}
  Json description() const;
  // "temp 0.7 top-k 20 top-p 0.8 (model)"
  std::string summary() const;
  // One line per value and its source.
  void explain(Console& console) const;

 private:
  // Qwen2.5's own generation_config.json; min-p is not in it.
  Setting<double> temp_{0.7};
  Setting<std::int64_t> top_k_{20};
  Setting<double> top_p_{0.8};
  Setting<double> min_p_{0.0};
  Setting<double> repeat_penalty_{1.05};
  Setting<std::string> seed_text_;
  std::uint64_t seed_ = 0;
};

}  // namespace qwen::cli
