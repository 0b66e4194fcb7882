// The noise of the cross-check's twins against the errors of real paths, and against the bounds.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"
#include "core/blocks.h"
#include "core/crosscheck/twins.h"
#include "core/half.h"
#include "tests/model_runs.h"

namespace qwen::crosscheck {
namespace {

using qwen::testing::allowed_drift;
using qwen::testing::distance;
using qwen::testing::Ids;
using qwen::testing::PlacedModel;
using qwen::testing::random_text;
using qwen::testing::read_floats;
using qwen::testing::run;
using qwen::testing::tiny_models;
using qwen::testing::TinyModel;

// Multiplies as a tensor core does: operands are rounded to F16, and after 16 products each the sum
// is cut, not rounded, to FP32.
class TensorCore : public CpuBackend {
 public:
  TensorCore() : CpuBackend(1, "") {}

  Contract contract(const Op& op) const override {
    const auto* gemm = std::get_if<Gemm>(&op);
    if (gemm == nullptr) return CpuBackend::contract(op);
    return {.sum_depth = 2 * ((gemm->x.cols() + 15) / 16),
            .truncates = true,
            .input_unit = 0x1p-11,
            .weight_unit = 0x1p-11,
            .input_step = 0x1p-25};
  }

 private:
  using CpuBackend::run;
  void run(const Gemm& op) override {
    const std::int64_t n = op.x.cols();
    std::vector<float> w(n);
    for (std::int64_t r = 0; r < op.out.cols(); ++r) {
      decode(op.weight.dtype, op.weight.row(r), n, w.data());
      std::transform(w.begin(), w.end(), w.begin(), round_to_f16);
      for (std::int64_t t = 0; t < op.x.rows(); ++t) {
        op.out.f32()[t * op.out.cols() + r] = dot(w, op.x.f32() + t * n);
      }
    }
  }

  static float dot(const std::vector<float>& w, const float* x) {
    float sum = 0;
    for (std::size_t begin = 0; begin < w.size(); begin += 16) {
      double part = sum;
      for (std::size_t c = begin; c < std::min(begin + 16, w.size()); ++c) {
        part += double{w[c]} * round_to_f16(x[c]);
      }
      sum = static_cast<float>(part);
      if (std::abs(sum) > std::abs(part)) sum = std::nextafter(sum, 0.0f);
    }
    return sum;
  }
};

// The largest difference that the noise of `n` twins of a path makes to the last logits of a text.
double twin_drift(const TinyModel& tiny, Backend& path, const Ids& text) {
  constexpr std::int32_t kGroups = 17;
  ReferenceBackend reference;
  const PlacedModel on_path(tiny, path);
  const PlacedModel exact(tiny, reference);
  const auto length = static_cast<std::int64_t>(text.size());
  SessionOptions session_options{.ctx = length, .max_step_tokens = length};
  std::vector<TokenInput> tokens;
  for (std::size_t i = 0; i < text.size(); ++i) {
    tokens.push_back({text[i], static_cast<std::int32_t>(i), 0, i + 1 == text.size()});
  }
  Plan plan;
  {
    Session session(*on_path.model, path, session_options);
    const RecordingScope recording(path, plan);
    session.step(tokens);
  }
  std::vector<Contract> contracts;
  for (const Node& node : plan) contracts.push_back(path.contract(node.op));
  std::vector<TokenInput> all;
  for (std::int32_t group = 0; group < kGroups; ++group) {
    for (TokenInput& t : tokens) t.seq = group;
    all.insert(all.end(), tokens.begin(), tokens.end());
  }
  session_options.n_seqs = session_options.max_step_rows = kGroups;
  session_options.max_step_tokens *= kGroups;
  Session session(*exact.model, reference, session_options);
  TwinNoise noise(kGroups, 1);
  noise.begin(contracts);
  const ObservingScope observing(reference, &noise);
  const Tensor logits = session.step(all);
  double largest = 0;
  const auto row = [&](std::int64_t r) { return read_floats(reference, logits.slice(r, r + 1)); };
  for (std::int64_t g = 1; g < kGroups; ++g) largest = std::max(largest, distance(row(g), row(0)));
  return largest;
}

class TwinsTest : public ::testing::TestWithParam<TinyModel> {
 protected:
  // The cheap noise is no more than what contracts allow, and no less than what paths do.
  void check(Backend& path, const Ids& text) {
    ReferenceBackend reference;
    const double real = distance(run(GetParam(), path, {{text}}).logits[0],
                                 run(GetParam(), reference, {{text}}).logits[0]);
    const double twins = twin_drift(GetParam(), path, text);
    const double bound = allowed_drift(GetParam(), path, {{text}})[0].logits / 3;
    EXPECT_LE(real, 3 * twins);
    EXPECT_LE(twins, bound);
  }
};

TEST_P(TwinsTest, OfTheCpu) {
  CpuBackend cpu(1, "");
  check(cpu, random_text(5, 7));
  check(cpu, random_text(20, 7));  // another kind of product
}

// What they round to is not in the bounds, which are of a rounded input.
TEST_P(TwinsTest, OfIntegers) {
  CpuBackend path(1, "", Activations::kInt8);
  ReferenceBackend reference;
  const Ids text = random_text(20, 7);
  const double real = distance(run(GetParam(), path, {{text}}).logits[0],
                               run(GetParam(), reference, {{text}}).logits[0]);
  EXPECT_LE(real, 3 * twin_drift(GetParam(), path, text));
}

TEST_P(TwinsTest, OfATensorCore) {
  TensorCore path;
  check(path, random_text(5, 7));
}

INSTANTIATE_TEST_SUITE_P(Tiny, TwinsTest, ::testing::ValuesIn(tiny_models()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace qwen::crosscheck
