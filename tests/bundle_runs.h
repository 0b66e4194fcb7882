// Bundles of faults that are planted in tiny models, in a folder that is gone after the test.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backends/cpu/reference/reference.h"
#include "core/crosscheck/bundle.h"
#include "core/crosscheck/faults.h"
#include "tests/checked_path.h"
#include "tests/fixtures/tiny_model.h"
#include "tools/qwen/bundle_folder.h"

namespace qwen::testing {

// The Python that runs verify.py: the variable QWEN_PYTHON, or the one that the build found.
inline std::string python() {
  const char* given = std::getenv("QWEN_PYTHON");
  return given != nullptr ? given : QWEN_PYTHON;
}

// Whether it has NumPy; found out once.
inline bool has_numpy() {
  static const bool has =
      std::system(("'" + python() + "' -c 'import numpy' >/dev/null 2>&1").c_str()) == 0;
  return has;
}

// The exit code of verify.py, all folders in one go; what it prints is in `output`.
inline int verify(const std::vector<std::string>& folders, std::string& output) {
  const std::string log = folders.front() + "/verify.log";
  std::string command = "'" + python() + "' -B '" + folders.front() + "/verify.py'";
  for (const std::string& folder : folders) command += " '" + folder + "'";
  const int status = std::system((command + " >'" + log + "' 2>&1").c_str());
  std::ifstream in(log);
  output.assign(std::istreambuf_iterator<char>(in), {});
  return WEXITSTATUS(status);
}

inline std::uint64_t folder_bytes(const std::string& folder) {
  std::uint64_t total = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder)) total += file.file_size();
  return total;
}

inline const cli::Origin& cpu_origin() {
  static const cli::Origin kOrigin{.device = {{"kind", "cpu"}}, .oracle = "ref"};
  return kOrigin;
}

class BundleTest : public ::testing::Test {
 protected:
  BundleTest();
  ~BundleTest() override { std::filesystem::remove_all(dir_); }

  // The run of a tiny model with a fault: three texts, prefill in steps, decode.
  crosscheck::CrossCheckResult run(const fixtures::TinyModelSpec& spec,
                                   const crosscheck::Fault& fault, DType kv,
                                   const crosscheck::KeepEvidence& keep);
  // Its bundles. `check` sees each while its evidence lives.
  using Check = std::function<void(const crosscheck::Evidence&, const crosscheck::Bundle&)>;
  std::vector<crosscheck::Bundle> bundles_of(const fixtures::TinyModelSpec& spec,
                                             const crosscheck::Fault& fault, DType kv,
                                             const Check& check = {});
  static const crosscheck::Fault& fault_called(std::string_view id);
  // The folder of the first bundle of a fault of the catalogue, on the small model with an F16
  // cache.
  std::string written(std::string_view fault_id);

  static fixtures::TinyModelSpec small() {
    return {.dtype = DType::kF32,
            .n_heads = 14,
            .n_kv_heads = 2,
            .head_dim = 64,
            .dim = 128,
            .ffn_dim = 208};
  }
  static fixtures::TinyModelSpec quantised() {
    return {.dtype = DType::kQ8_0,
            .v_dtype = DType::kQ4_1,  // with a minimum
            .n_heads = 6,
            .n_kv_heads = 2,
            .head_dim = 128,
            .dim = 256,
            .ffn_dim = 512,
            .tied = false};
  }

  std::string dir_;
  std::unique_ptr<CheckedPath> checked_ = std::make_unique<CheckedPath>("cpu");
  ReferenceBackend reference_;
};

}  // namespace qwen::testing
