// Repro bundles: what a failed op leaves is written, read back and judged again, by the engine and
// by verify.py, with the same outcome.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <filesystem>
#include <set>

#include "tests/bundle_runs.h"
#include "tests/cli_process.h"
#include "tests/usable_device.h"
#include "tools/qwen/kept_bundles.h"

namespace qwen::testing {
namespace {

namespace fs = std::filesystem;
using crosscheck::Again;
using crosscheck::Bundle;
using crosscheck::Evidence;
using crosscheck::Fault;
using crosscheck::Judgement;

// The failed elements of the whole op that a bundle has kept, by their places in the bundle.
std::vector<std::int64_t> kept_failures(const Evidence& evidence, const Bundle& bundle,
                                        std::size_t output) {
  const Tensor& whole = evidence.got[output];
  const std::int64_t size = whole.size() / whole.shape[0];
  const auto place_in = [](const std::vector<std::int64_t>& kept, std::int64_t i) {
    const auto at = std::lower_bound(kept.begin(), kept.end(), i);
    return at != kept.end() && *at == i ? at - kept.begin() : -1;
  };
  std::vector<std::int64_t> places;
  std::vector<std::int64_t> rows = bundle.rows;
  if (evidence.judgements[output].output == "seen") {  // its rows are sequences
    for (std::int64_t& row : rows) row = std::get<Sample>(evidence.inputs).seq.i32()[row];
  }
  for (const std::int64_t element : evidence.judgements[output].failed) {
    const std::int64_t row = place_in(rows, element / size);
    const bool cut_columns = !bundle.columns.empty();
    const std::int64_t column =
        cut_columns ? place_in(bundle.columns, element % size) : element % size;
    if (row < 0 || column < 0) continue;
    places.push_back(row * (cut_columns ? static_cast<std::int64_t>(bundle.columns.size()) : size) +
                     column);
  }
  return places;
}

void expect_same_verdict(const Evidence& evidence, const Bundle& bundle) {
  SCOPED_TRACE(evidence.divergence.tap.name);
  bool some = false;
  for (std::size_t i = 0; i < bundle.judgements.size(); ++i) {
    const Judgement& j = bundle.judgements[i];
    std::vector<std::int64_t> expected = kept_failures(evidence, bundle, i);
    std::vector<std::int64_t> listed = j.failed;
    if (j.failed.size() == Judgement::kMaxListed ||
        evidence.judgements[i].failed.size() == Judgement::kMaxListed) {
      const std::size_t n = std::min(listed.size(), expected.size());  // both are cut
      listed.resize(n);
      expected.resize(n);
    }
    EXPECT_EQ(listed, expected) << j.output;
    some = some || !listed.empty();
  }
  EXPECT_TRUE(some);
  EXPECT_EQ(judgement(bundle).first.ratio(), evidence.divergence.element.ratio());
  EXPECT_EQ(std::bit_cast<std::uint64_t>(judgement(bundle).first.got),
            std::bit_cast<std::uint64_t>(evidence.divergence.element.got));
}

// What is read back is what was written, and so is what the reference says of it.
void expect_equal(const Bundle& bundle, cli::StoredBundle stored) {
  Bundle& read = stored.bundle;
  EXPECT_EQ(read.divergence.tap.name, bundle.divergence.tap.name);
  EXPECT_EQ(read.divergence.output, bundle.divergence.output);
  EXPECT_EQ(read.divergence.coords, bundle.divergence.coords);
  EXPECT_EQ(read.tolerances, bundle.tolerances);
  const std::vector<Judgement> then = read.judgements;
  ReferenceBackend reference;
  cli::judge_kept("", reference, read);
  EXPECT_EQ(read.tolerances, bundle.tolerances);
  ASSERT_EQ(read.judgements.size(), bundle.judgements.size());
  for (std::size_t i = 0; i < then.size(); ++i) {
    EXPECT_EQ(then[i].failed, bundle.judgements[i].failed);
    EXPECT_EQ(read.judgements[i].failed, bundle.judgements[i].failed);
    EXPECT_EQ(read.judgements[i].n_failed, bundle.judgements[i].n_failed);
    EXPECT_EQ(read.judgements[i].first.ratio(), bundle.judgements[i].first.ratio());
  }
}

// A device, and whether the model is quantised.
class EveryFault : public BundleTest,
                   public ::testing::WithParamInterface<std::tuple<std::string, bool>> {
 protected:
  void SetUp() override {
    const std::string& kind = std::get<0>(GetParam());
    const std::string why = why_skipped(kind);
    if (!why.empty()) GTEST_SKIP() << why;
    checked_ = std::make_unique<CheckedPath>(kind);
  }
};

TEST_P(EveryFault, IsReplayedFromItsBundle) {
  const bool is_quantised = std::get<1>(GetParam());
  const auto spec = is_quantised ? quantised() : small();
  std::vector<std::string> folders;
  std::set<std::string> kinds;
  int same = 0;
  for (const Fault& fault : crosscheck::fault_catalogue()) {
    SCOPED_TRACE(fault.id);
    const auto bundles =
        bundles_of(spec, fault, is_quantised ? DType::kF16 : DType::kF32, expect_same_verdict);
    // At least one for each op that the fault was planted in. (Zeroed weights are found at load.)
    EXPECT_GE(bundles.size(), fault.plants.size());
    for (const Bundle& bundle : bundles) {
      const std::string folder =
          dir_ + "/" + std::string(fault.id) + "-" + cli::bundle_name(bundle.divergence);
      write_bundle(folder, bundle, cpu_origin());
      EXPECT_LE(folder_bytes(folder), 5'000'000u) << folder;
      expect_equal(bundle, cli::read_bundle(folder));
      folders.push_back(folder);
      kinds.insert(std::string(name(bundle.op)));
      EXPECT_EQ(run_again(bundle, checked_->path(), reference_).again, Again::kRight);
      crosscheck::FaultyBackend faulty(checked_->path(), reference_, fault.plants);
      same += run_again(bundle, faulty, reference_).again == Again::kSame;
    }
  }
  EXPECT_GE(folders.size(), 60u);
  // Some faults depend on what was cut away: other rows, the whole table.
  EXPECT_GT(static_cast<std::size_t>(2 * same), folders.size());
  EXPECT_EQ(kinds.size(), 11u);  // all but Advance
  if (!has_numpy()) GTEST_SKIP() << python() << " has no NumPy: verify.py is not run";
  std::string output;
  EXPECT_EQ(verify(folders, output), 0) << output;
}

std::string test_name(const ::testing::TestParamInfo<std::tuple<std::string, bool>>& test) {
  return std::get<0>(test.param) + (std::get<1>(test.param) ? "_quantised_kvF16" : "_F32_kvF32");
}

INSTANTIATE_TEST_SUITE_P(Tiny, EveryFault,
                         ::testing::Combine(::testing::Values("cpu", "cuda"), ::testing::Bool()),
                         test_name);
INSTANTIATE_TEST_SUITE_P(Int8, EveryFault, ::testing::Values(std::tuple("cpu_int8", true)),
                         test_name);

// As the command writes them: only if asked to, with the cause that is known at the end.
TEST_F(BundleTest, OfARunAreKept) {
  const Fault& fault = fault_called("P");
  const std::string dir = dir_ + "/new/folder";
  cli::KeptBundles kept(dir, reference_);
  const auto result = run(small(), fault, DType::kF32, kept.keep());
  kept.write(result.shadow, cpu_origin());
  EXPECT_EQ(kept.folders().size(), 3u);
  const auto& found = result.shadow.divergences;
  const std::string first = dir + "/xc-0000-00-q_proj";
  EXPECT_EQ(kept.folders().at(0), first);
  EXPECT_NE(kept.text(result.shadow).find("--replay " + first), std::string::npos);
  for (const std::string& folder : kept.folders()) {
    const crosscheck::Divergence& d = cli::read_bundle(folder).bundle.divergence;
    const auto plant = std::find_if(fault.plants.begin(), fault.plants.end(),
                                    [&](const auto& p) { return p.tap == d.tap.name; });
    ASSERT_NE(plant, fault.plants.end()) << folder;
    EXPECT_EQ(d.cause.name, plant->cause);
    const auto reported = std::find_if(found.begin(), found.end(),
                                       [&](const auto& r) { return r.tap.name == d.tap.name; });
    EXPECT_EQ(d.pattern, reported->pattern);
    EXPECT_EQ(d.cause.evidence, reported->cause.evidence);
  }
  const cli::KeptBundles none("", reference_);
  EXPECT_NE(none.text(result.shadow).find("--bundle DIR"), std::string::npos);
  EXPECT_EQ(none.text({}), "");
}

TEST_F(BundleTest, IsReplayedByTheProgram) {
  const std::string folder = written("M8a");
  const Result wrong = run_program({"cross-check", "--replay", folder});
  EXPECT_EQ(wrong.code, 1) << wrong.err;
  EXPECT_TRUE(wrong.out.starts_with("FAIL token 1 layer 0 op attn_out  seq 0 head ")) << wrong.out;
  EXPECT_NE(wrong.out.find("as they were then"), std::string::npos) << wrong.out;
  EXPECT_NE(wrong.out.find("now the cpu computes this part of the op right"), std::string::npos);
  const Json json = run_program({"cross-check", "--replay", folder, "--json"}).json();
  expect_keys(json, {"schema", "verdict", "bundle", "divergence", "as_kept", "now"});
  EXPECT_EQ(json["verdict"], "diverge");
  EXPECT_EQ(json["as_kept"], true);
  EXPECT_EQ(json["divergence"]["layer"], 0);
  EXPECT_EQ(json["now"]["kind"], "cpu");
  EXPECT_EQ(json["now"]["result"], "right");
  // What would have been right.
  for (const char* output : {"out", "lse"}) {
    fs::copy_file(folder + "/expected_" + output + ".npy", folder + "/got_" + output + ".npy",
                  fs::copy_options::overwrite_existing);
  }
  const Result right = run_program({"cross-check", "--replay", folder, "--device", "ref"});
  EXPECT_EQ(right.code, 0) << right.err;
  EXPECT_TRUE(right.out.starts_with("PASS token 1 layer 0 op attn_out: ")) << right.out;
  EXPECT_NE(right.out.find("then it was another verdict"), std::string::npos) << right.out;
  EXPECT_NE(right.out.find("now the ref computes"), std::string::npos) << right.out;

  expect_failure(run_program({"cross-check", "x.gguf", "--replay", folder}), 2, "MODEL");
  expect_failure(run_program({"cross-check", "--replay", folder, "-n", "3"}), 2, "-n");
  expect_failure(run_program({"cross-check", "--replay", dir_}), 3, "is no complete bundle",
                 "--bundle");
  fs::remove(folder + "/q.npy");
  expect_failure(run_program({"cross-check", "--replay", folder}), 3, "q.npy is not there");
}

// On a machine without the device that it is from.
TEST_F(BundleTest, IsJudgedWithoutItsDevice) {
  const std::string folder = dir_ + "/bundle";
  cli::write_bundle(folder, bundles_of(small(), fault_called("M9b"), DType::kF32).at(0),
                    {.device = {{"kind", "abacus"}}, .oracle = "ref"});
  const Result result = run_program({"cross-check", "--replay", folder});
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("abacus"), std::string::npos) << result.err;
  EXPECT_EQ(result.out.find("now the"), std::string::npos) << result.out;
  const Result elsewhere = run_program({"cross-check", "--replay", folder, "--device", "cpu"});
  EXPECT_NE(elsewhere.out.find("now the cpu computes"), std::string::npos) << elsewhere.out;
}

}  // namespace
}  // namespace qwen::testing
