// The real model of tests/golden (Qwen2.5-Coder-0.5B-Instruct, Q4_K_M), for the tests that need it:
// they skip, visibly, unless the environment variable QWEN_REAL_MODEL names the file.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backends/registry.h"
#include "core/session.h"
#include "loader/weights.h"

namespace qwen::testing {

inline const char* real_model_path() { return std::getenv("QWEN_REAL_MODEL"); }

// A model from a GGUF source, placed on a backend.
struct LoadedModel {
  std::unique_ptr<GgufModelFile> file;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Model> model;

  LoadedModel(std::shared_ptr<const Source> source, std::string_view kind,
              const BackendOptions& options = {})
      : file(std::make_unique<GgufModelFile>(Gguf::parse(std::move(source)))),
        backend(make_backend(kind, options)),
        model(load_model(*file, *backend)) {}
};

// tests/golden of the build; the environment variable QWEN_GOLDEN_DIR names it where the test does
// not run on the machine that built it.
inline std::string golden_dir() {
  const char* given = std::getenv("QWEN_GOLDEN_DIR");
  return given == nullptr ? QWEN_GOLDEN_DIR : given;
}

// One JSON document per line of a file in tests/golden.
inline std::vector<nlohmann::json> golden_lines(const std::string& name) {
  std::ifstream in(golden_dir() + "/" + name);
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

}  // namespace qwen::testing
