#include "tests/model_runs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "backends/cpu/reference/reference.h"
#include "core/half.h"
#include "core/kv_layout.h"
#include "tests/fixtures/random.h"

namespace qwen::testing {
namespace {

class TwinBackend : public ReferenceBackend {
 public:
  TwinBackend(std::uint64_t seed, const Backend& contract_of)
      : random_(seed), contract_of_(contract_of) {}

 protected:
  using ReferenceBackend::run;
  void run(const RmsNorm& op) override { perturbed(op, op.out); }
  void run(const Gemm& op) override { perturbed(op, op.out); }
  void run(const Attention& op) override { perturbed(op, op.out, op.lse); }
  void run(const SiluMul& op) override { perturbed(op, op.out); }

 private:
  template <class T>
  void perturbed(const T& op, const Tensor& out, const Tensor& lse = {}) {
    ReferenceBackend::run(op);
    const Tolerance bound = tolerance(op, contract_of_.contract(op), out, lse);
    for (std::int64_t i = 0; i < out.size(); ++i) {
      out.f32()[i] += static_cast<float>(bound.out[i] * random_.uniform(-1, 1));
    }
  }

  fixtures::Random random_;
  const Backend& contract_of_;
};

}  // namespace

std::vector<TinyModel> tiny_models() {
  return {{"F32",
           {.dtype = DType::kF32, .n_heads = 4, .n_kv_heads = 2, .head_dim = 64, .ffn_dim = 384}},
          {"F16",
           {.dtype = DType::kF16,
            .n_heads = 7,
            .n_kv_heads = 1,
            .head_dim = 64,
            .ffn_dim = 448,
            .tied = false}},
          {"Q8_0",
           {.dtype = DType::kQ8_0,
            .n_heads = 6,
            .n_kv_heads = 2,
            .head_dim = 128,
            .dim = 256,
            .ffn_dim = 512}},
          // As in files of mixed formats.
          {"Q5_0_Q8_0",
           {.dtype = DType::kQ5_0,
            .v_dtype = DType::kQ8_0,
            .n_heads = 4,
            .n_kv_heads = 2,
            .head_dim = 64,
            .ffn_dim = 384}},
          {"Q4_0_F16_Q8_0",
           {.dtype = DType::kQ4_0,
            .k_dtype = DType::kF16,
            .v_dtype = DType::kQ8_0,
            .n_heads = 8,
            .n_kv_heads = 2,
            .head_dim = 64,
            .ffn_dim = 384}},
          // Without outliers the drift of correct runs is small, and so is what is let through.
          {"Calm",
           {.dtype = DType::kF16,
            .n_heads = 4,
            .n_kv_heads = 2,
            .head_dim = 64,
            .ffn_dim = 384,
            .outliers = false}}};
}

PlacedModel::PlacedModel(const TinyModel& tiny, Backend& backend)
    : file(std::make_unique<GgufModelFile>(
          Gguf::parse(from_memory(fixtures::tiny_model(tiny.spec).bytes(), "tiny")))),
      model(load_model(*file, backend)) {}

Ids random_text(std::size_t n, std::uint64_t seed) {
  fixtures::Random random(seed);
  Ids ids;
  for (std::size_t i = 0; i < n; ++i) ids.push_back(static_cast<std::int32_t>(random.below(250)));
  return ids;
}

std::vector<float> read_floats(Backend& backend, const Tensor& tensor) {
  std::vector<float> values(tensor.size());
  if (tensor.dtype == DType::kF32) {
    backend.read(values.data(), tensor);
    return values;
  }
  std::vector<std::uint16_t> halves(tensor.size());
  backend.read(halves.data(), tensor);
  std::transform(halves.begin(), halves.end(), values.begin(), f16_to_f32);
  return values;
}

std::vector<float> cached(Session& session, std::int32_t seq, std::int64_t n) {
  std::vector<float> values;
  const Tensor pages = session.kv().pages();
  std::vector<std::int32_t> table(pages.size());
  session.backend().read(table.data(), pages);
  for (std::int64_t layer = 0; layer < session.kv().shape().n_layers; ++layer) {
    for (const Tensor& t : {session.kv().k(layer), session.kv().v(layer)}) {
      const KvLayout layout = kv_layout(t, pages);
      const std::vector<float> all = read_floats(session.backend(), t);
      for (std::int64_t head = 0; head < layout.n_kv_heads; ++head) {
        for (std::int64_t pos = 0; pos < n; ++pos) {
          const float* row = all.data() + kv_offset(layout, table.data(), seq, head, pos, 0);
          values.insert(values.end(), row, row + layout.head_dim);
        }
      }
    }
  }
  return values;
}

RunResult run(const TinyModel& tiny, Backend& backend, const Feed& feed) {
  const PlacedModel placed(tiny, backend);
  const std::vector<Ids>& texts = feed.texts;
  const auto n_seqs = static_cast<std::int64_t>(texts.size());
  Session session(*placed.model, backend,
                  {.ctx = 200,
                   .n_seqs = n_seqs,
                   .max_step_tokens = 400,
                   .max_step_rows = n_seqs,
                   .kv_dtype = feed.kv_dtype,
                   .poison = feed.poison});
  RunResult result;
  result.logits.resize(texts.size());
  std::vector<std::size_t> at(texts.size());
  for (std::size_t step = 0;; ++step) {
    std::vector<TokenInput> tokens;
    std::vector<std::size_t> finished;
    for (std::size_t s = 0; s < texts.size(); ++s) {
      const std::size_t size = step < feed.cuts.size() ? feed.cuts[step] : texts[s].size();
      const std::size_t end = std::min(at[s] + size, texts[s].size());
      for (; at[s] < end; ++at[s]) {
        const bool last = at[s] + 1 == texts[s].size();
        tokens.push_back({texts[s][at[s]], static_cast<std::int32_t>(at[s]),
                          static_cast<std::int32_t>(s), last});
        if (last) finished.push_back(s);
      }
    }
    if (tokens.empty()) break;
    const Tensor logits = session.step(tokens);
    for (std::size_t i = 0; i < finished.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      result.logits[finished[i]] = read_floats(backend, logits.slice(row, row + 1));
    }
  }
  for (std::size_t s = 0; s < texts.size(); ++s) {
    result.cache.push_back(
        cached(session, static_cast<std::int32_t>(s), static_cast<std::int64_t>(texts[s].size())));
  }
  return result;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(double{a[i]} - b[i]);
    if (!(d <= largest)) largest = d;  // keeps not-a-number
  }
  return largest;
}

std::vector<Drift> allowed_drift(const TinyModel& tiny, Backend& backend, const Feed& feed) {
  ReferenceBackend reference;
  const RunResult exact = run(tiny, reference, feed);
  std::vector<Drift> drift(feed.texts.size());
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    TwinBackend twin(seed, backend);
    const RunResult moved = run(tiny, twin, feed);
    for (std::size_t s = 0; s < drift.size(); ++s) {
      const double logits = distance(moved.logits[s], exact.logits[s]);
      const double cache = distance(moved.cache[s], exact.cache[s]);
      EXPECT_TRUE(std::isfinite(logits) && std::isfinite(cache));
      drift[s].logits = std::max(drift[s].logits, 3 * logits);
      drift[s].cache = std::max(drift[s].cache, 3 * cache);
    }
  }
  for (const Drift& d : drift) EXPECT_GT(d.logits, 0);
  return drift;
}

}  // namespace qwen::testing
