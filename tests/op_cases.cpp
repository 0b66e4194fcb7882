#include "tests/op_cases.h"

#include <cstring>
#include <limits>

#include "core/blocks.h"
#include "core/sampler.h"
#include "tests/fixtures/random_blocks.h"
#include "tests/op_case_parts.h"

namespace qwen::testing {
namespace {

using fixtures::Random;

constexpr std::size_t kGuard = 64;  // bytes on either side; keeps the alignment
constexpr std::uint8_t kGuardByte = 0xA5;

Tensor weights(GuardedMemory& m, Random& r, DType dtype, std::int64_t rows, std::int64_t cols) {
  const Tensor t = m.take(dtype, {rows, cols});
  fixtures::Bytes bytes;
  fixtures::append_random(bytes, dtype, t.size(), 0.05, r);
  std::memcpy(t.data, bytes.data(), bytes.size());
  return t;
}

std::vector<DType> weight_types() {
  std::vector<DType> types;
  for (const DTypeInfo& row : dtype_table()) {
    if (row.decode_block != nullptr) types.push_back(row.dtype);
  }
  return types;
}

void add_simple_cases(std::vector<OpCase>& cases) {
  for (const DType dtype : weight_types()) {
    cases.push_back({"Embed_" + type_name(dtype), [dtype](GuardedMemory& m, Random& r) -> Op {
                       return Embed{output(m, {5, 512}), weights(m, r, dtype, 300, 512),
                                    integers(m, {299, 0, 7, 7, 141})};
                     }});
  }
  struct Shape {
    std::int64_t rows, cols;
  };
  for (const auto [rows, cols] : {Shape{1, 896}, Shape{3, 129}, Shape{70, 1536}, Shape{2, 7}}) {
    const std::string suffix = std::to_string(rows) + "x" + std::to_string(cols);
    const std::int64_t n = rows;
    const std::int64_t d = cols;
    // An embedding-sized input, where eps matters, and one with the residual spike of real models.
    cases.push_back({"RmsNorm_small_" + suffix, [n, d](GuardedMemory& m, Random& r) -> Op {
                       return RmsNorm{output(m, {n, d}), floats(m, r, {n, d}, 0.008),
                                      floats(m, r, {d}, 7), 1e-6f};
                     }});
    cases.push_back({"RmsNorm_spike_" + suffix, [n, d](GuardedMemory& m, Random& r) -> Op {
                       const Tensor x = floats(m, r, {n, d});
                       x.f32()[d / 2] = 2180.0f;
                       return RmsNorm{output(m, {n, d}), x, floats(m, r, {d}, 7), 1e-6f};
                     }});
    cases.push_back({"AddBias_" + suffix, [n, d](GuardedMemory& m, Random& r) -> Op {
                       return AddBias{floats(m, r, {n, d}), floats(m, r, {d}, 40)};
                     }});
    cases.push_back({"Add_" + suffix, [n, d](GuardedMemory& m, Random& r) -> Op {
                       return Add{floats(m, r, {n, d}, 30), floats(m, r, {n, d})};
                     }});
    cases.push_back(
        {"SiluMul_" + suffix, [n, d](GuardedMemory& m, Random& r) -> Op {
           return SiluMul{output(m, {n, d}), floats(m, r, {n, d}, 20), floats(m, r, {n, d}, 3)};
         }});
    cases.push_back({"TakeRows_" + suffix, [n, d](GuardedMemory& m, Random& r) -> Op {
                       const auto last = static_cast<std::int32_t>(n - 1);
                       return TakeRows{output(m, {3, d}), floats(m, r, {n, d}),
                                       integers(m, {last, 0, last / 2})};
                     }});
  }
}

void add_gemm_cases(std::vector<OpCase>& cases) {
  for (const DType dtype : weight_types()) {
    // One token, a few, the first panel size, and a ragged many; rows that no tile divides.
    for (const GemmShape s :
         {GemmShape{1, 131, 768}, GemmShape{3, 57, 256}, GemmShape{7, 33, 512},
          GemmShape{16, 59, 256}, GemmShape{17, 61, 768}, GemmShape{37, 130, 1280}}) {
      cases.push_back(gemm_case(dtype, s));
    }
    cases.push_back(gemm_case(dtype, {.tokens = 3, .rows = 59, .cols = 768, .is_head = true}));
    cases.push_back(gemm_case(dtype, {.tokens = 5, .rows = 59, .cols = 256, .is_head = true}));
  }
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const GemmShape s : {GemmShape{1, 5, 37}, GemmShape{4, 19, 71}, GemmShape{33, 15, 1},
                              GemmShape{11, 896, 896}, GemmShape{18, 896, 896}}) {
      cases.push_back(gemm_case(dtype, s));
    }
  }
  // Several tiles for each of a GPU's blocks, and rows that need several batches.
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kQ5_0, DType::kQ6_K}) {
    for (const GemmShape s :
         {GemmShape{1, 13001, 256}, GemmShape{2, 131, 2048}, GemmShape{3, 70, 4864}}) {
      cases.push_back(gemm_case(dtype, s));
    }
  }
  for (const DType dtype : {DType::kF32, DType::kQ8_0}) {
    cases.push_back(gemm_case(dtype, {2, 9000, 896}));
  }
  // The most tokens that read a weight's own blocks on any backend, one more, and whole batches.
  for (const DType dtype : {DType::kF16, DType::kQ8_0, DType::kQ4_K}) {
    for (const GemmShape s : {GemmShape{8, 131, 1024}, GemmShape{9, 131, 1024},
                              GemmShape{64, 203, 768}, GemmShape{256, 130, 1280}}) {
      cases.push_back(gemm_case(dtype, s));
    }
  }
}

struct SampleShape {
  std::int64_t n_rows, n_vocab;
  std::string name() const { return std::to_string(n_rows) + "x" + std::to_string(n_vocab); }
};

// What the logits of a Sample case are like.
enum class Logits {
  kSpread,  // the candidates thin out quickly, as a model's do
  kFlat,    // thousands of candidates of nearly the same weight
  kEqual,   // zeros of either sign; nine values in the second row
  kBroken,  // not-a-number and infinities, row by row in other mixtures
};

void fill_logits(const Tensor& logits, Random& r, Logits kind) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (std::int64_t row = 0; row < logits.rows(); ++row) {
    for (std::int64_t i = 0; i < logits.cols(); ++i) {
      float& logit = logits.f32()[row * logits.cols() + i];
      const double normal = r.normal();
      switch (kind) {
        case Logits::kSpread:
          logit = static_cast<float>(3 * normal);
          break;
        case Logits::kFlat:
          logit = static_cast<float>(0.01 * normal - 2);
          break;
        case Logits::kEqual:
          logit = i % 2 == 0 ? -0.0f : 0.0f;
          if (row == 1) logit = static_cast<float>(r.below(9)) - 4.0f;
          break;
        case Logits::kBroken: {
          const std::uint64_t roll = r.below(100);
          logit = static_cast<float>(normal);
          if (roll < 40 || row == 1) logit = kNan;  // row 1: nothing else
          if (row == 2) logit = -kInfinity;         // the largest; not the first
          if (row == 2 && (roll < 40 || i == 0)) logit = kNan;
          if (row == 3 && roll >= 90) logit = kInfinity;   // several of the largest
          if (row == 4 && roll >= 70) logit = -kInfinity;  // beside finite ones
          break;
        }
      }
    }
  }
}

// Rows of different sequences, in falling order; of `params` each sequence has one in turn. A fifth
// of the tokens occurred before.
Sample make_sample(GuardedMemory& m, Random& r, const SampleShape& shape,
                   const std::vector<SampleParams>& params, Logits kind) {
  const std::int64_t n_seqs = shape.n_rows + 1;
  const Tensor logits = m.take(DType::kF32, {shape.n_rows, shape.n_vocab});
  fill_logits(logits, r, kind);
  const Tensor seen = m.take(DType::kI8, {n_seqs, shape.n_vocab});
  for (std::int64_t i = 0; i < seen.size(); ++i) {
    seen.as<std::int8_t>()[i] = r.below(5) == 0 ? 1 : 0;
  }
  const Tensor table = m.take(DType::kI32, {n_seqs, 8});
  std::vector<std::int32_t> seq, pos;
  for (std::int64_t s = 0; s < n_seqs; ++s) {
    SampleParams p = params[s % static_cast<std::int64_t>(params.size())];
    p.seed_low = static_cast<std::uint32_t>(r.next());
    p.seed_high = static_cast<std::uint32_t>(r.next());
    p.stream = static_cast<std::uint32_t>(s);
    std::memcpy(table.row(s), &p, sizeof p);
    if (s == 0) continue;
    seq.push_back(static_cast<std::int32_t>(n_seqs - s));
    pos.push_back(static_cast<std::int32_t>(r.below(32768)));
  }
  return {m.take(DType::kI32, {shape.n_rows}),
          output(m, {shape.n_rows}),
          seen,
          logits,
          integers(m, seq),
          integers(m, pos),
          table};
}

void add_sample_cases(std::vector<OpCase>& cases) {
  struct Setting {
    std::string name;
    std::vector<SampleParams> params;
  };
  std::vector<Setting> settings = {
      {"greedy", {{}}},
      {"greedy_penalty", {{.repeat_penalty = 1.3f}}},
      {"top_k_1", {{.temp = 1, .top_k = 1}}},
      {"top_k_20", {{.temp = 1, .top_k = 20}}},
      {"top_k_300", {{.temp = 1.5f, .top_k = 300}}},
      {"top_k_0", {{.temp = 1}}},
      {"top_p", {{.temp = 1, .top_p = 0.9f}}},
      {"min_p", {{.temp = 1, .min_p = 0.02f}}},
      {"qwen", {{.temp = 0.7f, .top_k = 20, .top_p = 0.8f, .repeat_penalty = 1.05f}}},
      {"all",
       {{.temp = 0.9f, .top_k = 500, .top_p = 0.95f, .min_p = 0.001f, .repeat_penalty = 1.2f}}},
  };
  Setting mixed{"mixed", {}};
  for (const Setting& s : settings) mixed.params.push_back(s.params[0]);
  settings.push_back(mixed);

  const auto add = [&](const Setting& setting, const SampleShape& shape, Logits kind,
                       const std::string& suffix) {
    cases.push_back({"Sample_" + setting.name + "_" + shape.name() + suffix,
                     [setting, shape, kind](GuardedMemory& m, Random& r) -> Op {
                       return make_sample(m, r, shape, setting.params, kind);
                     }});
  };
  for (const Setting& s : settings) {
    for (const SampleShape shape : {SampleShape{1, 1}, SampleShape{3, 33}, SampleShape{4, 1031}}) {
      add(s, shape, Logits::kSpread, "");
    }
    for (const Logits kind : {Logits::kFlat, Logits::kEqual, Logits::kBroken}) {
      const std::string suffix = kind == Logits::kFlat    ? "_flat"
                                 : kind == Logits::kEqual ? "_equal"
                                                          : "_broken";
      add(s, {6, 4999}, kind, suffix);
    }
    add(s, {1, 151936}, Logits::kSpread, "");
  }
  // The largest step, and candidates of which no short list is enough.
  add(mixed, {256, 515}, Logits::kSpread, "");
  add(mixed, {9, 151936}, Logits::kFlat, "_flat");
  add(mixed, {9, 151936}, Logits::kEqual, "_equal");
}

void add_advance_cases(std::vector<OpCase>& cases) {
  for (const std::int64_t n_rows : {1, 3, 256}) {
    cases.push_back(
        {"Advance_" + std::to_string(n_rows), [n_rows](GuardedMemory& m, Random& r) -> Op {
           const auto taken = [&] { return m.take(DType::kI32, {n_rows}); };
           const auto filled = [&] {
             const Tensor t = taken();
             for (std::int64_t i = 0; i < n_rows; ++i) {
               t.i32()[i] = static_cast<std::int32_t>(r.below(151936));
             }
             return t;
           };
           return Advance{taken(), taken(), taken(), taken(), filled(), filled(), filled()};
         }});
  }
}

}  // namespace

Tensor floats(GuardedMemory& m, Random& r, std::initializer_list<std::int64_t> dims,
              double deviation) {
  const Tensor t = m.take(DType::kF32, dims);
  for (std::int64_t i = 0; i < t.size(); ++i)
    t.f32()[i] = static_cast<float>(deviation * r.normal());
  return t;
}

Tensor integers(GuardedMemory& m, const std::vector<std::int32_t>& values) {
  const Tensor t = m.take(DType::kI32, {static_cast<std::int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.i32());
  return t;
}

Tensor output(GuardedMemory& m, std::initializer_list<std::int64_t> dims) {
  return m.take(DType::kF32, dims);
}

std::string type_name(DType dtype) { return std::string(info(dtype).name); }

OpCase gemm_case(DType dtype, const GemmShape& s) {
  return {(s.is_head ? "Gemm_head_" : "Gemm_") + type_name(dtype) + "_" + std::to_string(s.tokens) +
              "x" + std::to_string(s.rows) + "x" + std::to_string(s.cols),
          [dtype, s](GuardedMemory& m, Random& r) -> Op {
            return Gemm{output(m, {s.tokens, s.rows}), floats(m, r, {s.tokens, s.cols}, 3),
                        weights(m, r, dtype, s.rows, s.cols), s.is_head};
          }};
}

Tensor GuardedMemory::take(DType dtype, std::initializer_list<std::int64_t> dims) {
  Tensor t(nullptr, dtype, dims);
  const std::size_t used = t.bytes();
  Block block{std::vector<std::uint8_t>(used + 3 * kGuard, kGuardByte), used};
  blocks_.push_back(std::move(block));
  t.data = data(blocks_.size() - 1);
  std::memset(t.data, 0xff, used);
  return t;
}

std::byte* GuardedMemory::data(std::size_t i) const {
  auto address = reinterpret_cast<std::uintptr_t>(blocks_[i].bytes.data()) + kGuard;
  address = (address + kGuard - 1) / kGuard * kGuard;
  return reinterpret_cast<std::byte*>(address);
}

int GuardedMemory::first_broken_guard() const {
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const auto* begin = reinterpret_cast<const std::uint8_t*>(data(i));
    const auto& bytes = blocks_[i].bytes;
    const auto start = static_cast<std::size_t>(begin - bytes.data());
    for (std::size_t j = 0; j < bytes.size(); ++j) {
      const bool inside = j >= start && j < start + blocks_[i].used;
      if (!inside && bytes[j] != kGuardByte) return static_cast<int>(i);
    }
  }
  return -1;
}

std::vector<OpCase> op_cases() {
  std::vector<OpCase> cases;
  add_simple_cases(cases);
  add_gemm_cases(cases);
  add_cache_cases(cases);
  add_sample_cases(cases);
  add_advance_cases(cases);
  return cases;
}

}  // namespace qwen::testing
