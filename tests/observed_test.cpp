// Watching a path does not change what it computes: bit for bit the same logits. And what is read
// of it is used when it has arrived.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"
#include "backends/registry.h"
#include "core/crosscheck/cross_check.h"
#include "core/crosscheck/shadow.h"
#include "tests/model_runs.h"
#include "tests/usable_device.h"

namespace qwen::crosscheck {
namespace {

using qwen::testing::Ids;
using qwen::testing::PlacedModel;
using qwen::testing::random_text;
using qwen::testing::read_floats;
using qwen::testing::tiny_models;

class ObservedTest : public ::testing::TestWithParam<std::string> {};

TEST_P(ObservedTest, ShadowLeavesTheBitsAsTheyAre) {
  const std::string why = qwen::testing::why_skipped(GetParam());
  if (!why.empty()) GTEST_SKIP() << why;
  const auto path = make_backend(GetParam(), {.threads = GetParam() == "cpu" ? 3 : 0,
                                              .cuda = {.level = CudaOptions::Level::kEager}});
  for (const qwen::testing::TinyModel& tiny : tiny_models()) {
    SCOPED_TRACE(tiny.name);
    ReferenceBackend reference;
    const PlacedModel on_path(tiny, *path);
    const PlacedModel exact(tiny, reference);
    const SessionOptions session_options{.ctx = 32, .max_step_tokens = 32, .poison = true};
    Session alone(*on_path.model, *path, session_options);
    Session observed(*on_path.model, *path, session_options);
    Session oracle(*exact.model, reference, session_options);
    Shadow shadow({*path, reference, reference, reference});
    const Ids text = random_text(22, 3);
    std::vector<TokenInput> tokens;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const bool ends = i >= 18;  // a prefill, and a token a step
      tokens.push_back({text[i], static_cast<std::int32_t>(i), 0, ends});
      if (!ends) continue;
      const std::vector<float> expected = read_floats(*path, alone.step(tokens));
      Plan plan;
      {
        const RecordingScope recording(reference, plan);
        oracle.step(tokens);
      }
      shadow.begin(plan, tokens);
      const ObservingScope observing(*path, &shadow);
      EXPECT_EQ(read_floats(*path, observed.step(tokens)), expected) << "token " << i;
      tokens.clear();
    }
    EXPECT_GT(shadow.result().n_checks, 100);
  }
}

// What is read from it arrives when it is waited for, and not before.
class LateBackend : public CpuBackend {
 public:
  LateBackend() : CpuBackend(1, "") {}

  std::uint64_t read_later(void* dst, const Tensor& src) override {
    std::memset(dst, 0xff, src.bytes());
    under_way_.push_back({static_cast<std::byte*>(dst), {src.data, src.data + src.bytes()}});
    return n_reads_++;
  }
  void wait(std::uint64_t read) override {
    for (; n_arrived_ <= read; ++n_arrived_) {
      const Read& arrived = under_way_[n_arrived_];
      std::copy(arrived.bytes.begin(), arrived.bytes.end(), arrived.dst);
    }
  }

 private:
  struct Read {
    std::byte* dst;
    std::vector<std::byte> bytes;
  };
  std::vector<Read> under_way_;
  std::uint64_t n_reads_ = 0;
  std::uint64_t n_arrived_ = 0;
};

TEST(LateReadsTest, AreAwaited) {
  LateBackend path;
  ReferenceBackend reference;
  const PlacedModel on_path(tiny_models().front(), path);
  const PlacedModel exact(tiny_models().front(), reference);
  const CrossCheckResult result = cross_check(
      {path, reference, reference, reference}, {*on_path.model, *exact.model, *exact.file},
      {.texts = {random_text(9, 3)}, .n_decode = 3, .chunk = 6});
  EXPECT_EQ(result.agreement, Agreement::kAgree);
  EXPECT_GT(result.shadow.n_checks, 100);
}

INSTANTIATE_TEST_SUITE_P(Tiny, ObservedTest, ::testing::Values("cpu", "cuda"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace qwen::crosscheck
