#include "tests/bundle_runs.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "loader/weights.h"
#include "tests/model_runs.h"

namespace qwen::testing {

using crosscheck::Bundle;
using crosscheck::Fault;

BundleTest::BundleTest() {
  dir_ = (std::filesystem::temp_directory_path() / "qwen_bundle_XXXXXX").string();
  if (mkdtemp(dir_.data()) == nullptr) throw std::runtime_error("no temporary folder");
}

crosscheck::CrossCheckResult BundleTest::run(const fixtures::TinyModelSpec& spec,
                                             const Fault& fault, DType kv,
                                             const crosscheck::KeepEvidence& keep) {
  const auto open = [bytes = fixtures::tiny_model(spec).bytes()]() -> std::unique_ptr<ModelFile> {
    return std::make_unique<GgufModelFile>(Gguf::parse(from_memory(bytes, "tiny")));
  };
  const crosscheck::CrossCheckOptions options = {
      .texts = {random_text(11, 5), random_text(4, 6), random_text(7, 7)},
      .n_decode = 4,
      .chunk = 6,
      .kv_dtype = kv,
      .keep = keep};
  return run_with_fault(checked_->sides(), open, options, fault).result;
}

std::vector<Bundle> BundleTest::bundles_of(const fixtures::TinyModelSpec& spec, const Fault& fault,
                                           DType kv, const Check& check) {
  std::vector<Bundle> bundles;
  run(spec, fault, kv, [&](const crosscheck::Evidence& evidence) {
    std::optional<Bundle> bundle = cut(evidence, reference_);
    ASSERT_TRUE(bundle.has_value()) << evidence.divergence.tap.name;
    if (check) check(evidence, *bundle);
    bundles.push_back(std::move(*bundle));
  });
  return bundles;
}

const Fault& BundleTest::fault_called(std::string_view id) {
  const auto all = crosscheck::fault_catalogue();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Fault& f) { return f.id == id; });
  if (found == all.end()) throw std::runtime_error("no such fault");
  return *found;
}

std::string BundleTest::written(std::string_view fault_id) {
  std::string folder = dir_ + "/bundle";
  write_bundle(folder, bundles_of(small(), fault_called(fault_id), DType::kF16).at(0),
               cpu_origin());
  return folder;
}

}  // namespace qwen::testing
