// Activations as 8-bit integers: what core/int8.h promises, and that the kernels' integers are
// those, bit for bit; panels of weights.
#include "core/int8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "core/blocks.h"
#include "tests/fixtures/random.h"
#include "tests/fixtures/random_blocks.h"

namespace qwen::testing {
namespace {

constexpr double kFineFrom = 1.5;
constexpr float kInfinite = std::numeric_limits<float>::infinity();

// Rows as they occur: most blocks alike, some with an outlier.
std::vector<float> activations(std::int64_t n, std::uint64_t seed) {
  fixtures::Random random(seed);
  std::vector<float> x(n);
  for (std::int64_t i = 0; i < n; ++i) {
    x[i] = static_cast<float>(random.normal());
    if (i / kInt8Block % 5 == 2 && i % kInt8Block == 7) x[i] = 40;
  }
  return x;
}

std::vector<float> rounded(std::vector<float> row) {
  round_to_int8(row.data(), static_cast<std::int64_t>(row.size()), kFineFrom);
  return row;
}

TEST(Int8, ValuesAreTheNearestMultiplesOfTheirUnit) {
  const std::vector<float> x = activations(896, 1);
  const std::vector<float> y = rounded(x);
  const auto roundings = int8_roundings(x.data(), 896, kFineFrom);
  ASSERT_EQ(roundings.size(), 28u);
  int n_fine = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Int8Rounding& r = roundings[i / kInt8Block];
    EXPECT_LE(std::abs(x[i] - y[i]), r.unit() / 2 * (1 + 1e-6f)) << i;
    const float multiple = y[i] / r.step;
    EXPECT_LE(std::abs(multiple), 127);
    EXPECT_EQ(multiple * (r.fine ? kInt8Fine : 1), std::nearbyint(y[i] / r.unit())) << i;
    n_fine += i % kInt8Block == 0 && r.fine;
  }
  EXPECT_EQ(n_fine, 6);  // blocks 2, 7, ..., 27
}

TEST(Int8, StepsHaveNineBitsAndHoldTheLargest) {
  for (float largest = 0x1p-100f; largest < 0x1p110f; largest *= 1.37f) {
    const float step = int8_step(largest);
    EXPECT_GE(127.0 * step, largest);
    EXPECT_LT(126.5 * step, largest);
    EXPECT_EQ(step, std::ldexp(std::nearbyint(std::ldexp(step, 8 - std::ilogb(step))),
                               std::ilogb(step) - 8));
  }
}

TEST(Int8, WhatIsTooSmallIsZero) {
  std::vector<float> x(64, 1e-35f);
  x[40] = 127;
  const std::vector<float> y = rounded(x);
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], i == 40 ? 127 : 0) << i;
}

TEST(Int8, NotFiniteValuesSpreadOverTheirBlockOnly) {
  for (const float wrong : {kInfinite, -kInfinite, std::nanf(""), 0x1p110f}) {
    std::vector<float> x = activations(96, 3);
    x[40] = wrong;
    const std::vector<float> y = rounded(x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_EQ(std::isnan(y[i]), i / kInt8Block == 1) << i;
    }
  }
}

// The identity as a weight, with a scale of 1.
std::vector<BlockQ8_0> identity_q8_0(std::int64_t n) {
  std::vector<BlockQ8_0> blocks(n * n / 32, {.d = f32_to_f16(1), .qs = {}});
  for (std::int64_t i = 0; i < n; ++i) blocks[(i * n + i) / 32].qs[i % 32] = 1;
  return blocks;
}

// 8 stands for 0.
std::vector<BlockQ4_0> identity_q4_0(std::int64_t n) {
  BlockQ4_0 zeros{.d = f32_to_f16(1), .qs = {}};
  std::fill_n(zeros.qs, 16, 0x88);
  std::vector<BlockQ4_0> blocks(n * n / 32, zeros);
  for (std::int64_t i = 0; i < n; ++i) {
    blocks[(i * n + i) / 32].qs[i % 16] = i % 32 < 16 ? 0x89 : 0x98;
  }
  return blocks;
}

// 32 stands for 0.
std::vector<BlockQ6_K> identity_q6_k(std::int64_t n) {
  BlockQ6_K zeros{};
  zeros.d = f32_to_f16(1);
  std::fill_n(zeros.scales, 16, std::int8_t{1});
  std::fill_n(zeros.qh, 64, 0xaa);
  std::vector<BlockQ6_K> blocks(n * n / 256, zeros);
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t place = i % 256 / 128 * 64 + i % 64;
    blocks[(i * n + i) / 256].ql[place] = i % 128 < 64 ? 0x01 : 0x10;
  }
  return blocks;
}

// A product with the identity is the rounded x.
template <class Block>
void expect_rounded(std::vector<Block> weight, std::int64_t n, bool is_head) {
  for (const std::string_view isa : CpuBackend::usable_isas()) {
    CpuBackend cpu(2, isa, Activations::kInt8);
    for (const std::int64_t n_tokens : {1, 2, 3, 7, 12, 13, 30}) {
      std::vector<float> x = activations(n_tokens * n, 5);
      std::vector<float> y(x.size());
      const Gemm op{.out = Tensor(y.data(), DType::kF32, {n_tokens, n}),
                    .x = Tensor(x.data(), DType::kF32, {n_tokens, n}),
                    .weight = Tensor(weight.data(), Block::kDType, {n, n}),
                    .is_head = is_head};
      const double fine_from = cpu.contract(op).int8_fine_from;
      EXPECT_TRUE(fine_from > 0 || !isa.starts_with("avx2")) << isa;
      if (fine_from == 0) continue;  // FP32 there
      cpu(op);
      for (std::int64_t t = 0; t < n_tokens; ++t) round_to_int8(x.data() + t * n, n, fine_from);
      EXPECT_EQ(y, x) << isa << ", " << info(Block::kDType).name << ", " << n << " columns, "
                      << n_tokens << " tokens";
    }
  }
}

TEST(Int8, KernelsRoundTheSameWay) {
  // Also an odd number of blocks, and a head.
  for (const auto& [n, is_head] : {std::pair{96, false}, {256, false}, {896, false}, {96, true}}) {
    expect_rounded(identity_q8_0(n), n, is_head);
    expect_rounded(identity_q4_0(n), n, is_head);  // levels with an offset
  }
  for (const bool is_head : {false, true}) {
    expect_rounded(identity_q6_k(768), 768, is_head);  // 16 columns per scale
  }
}

// The formats whose weights are laid out in panels.
constexpr DType kPanelTypes[] = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
                                 DType::kQ5_0, DType::kQ5_1, DType::kQ4_K,
                                 DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL};

struct PanelCase {
  PanelCase(DType dtype, std::int64_t n_rows, std::int64_t n_cols) {
    fixtures::Random random(17);
    fixtures::append_random(bytes, dtype, n_rows * n_cols, 0.1, random);
    weight = Tensor(bytes.data(), dtype, {n_rows, n_cols});
  }
  fixtures::Bytes bytes;
  Tensor weight;
};

std::vector<float> product(CpuBackend& cpu, const Tensor& weight, std::vector<float>& x) {
  const std::int64_t n_tokens = static_cast<std::int64_t>(x.size()) / weight.cols();
  std::vector<float> y(n_tokens * weight.rows());
  cpu(Gemm{.out = Tensor(y.data(), DType::kF32, {n_tokens, weight.rows()}),
           .x = Tensor(x.data(), DType::kF32, {n_tokens, weight.cols()}),
           .weight = weight});
  return y;
}

template <class F>
void for_each_panel_case(F f) {
  for (const std::string_view isa : CpuBackend::usable_isas()) {
    for (const DType dtype : kPanelTypes) {
      for (const std::int64_t n_rows : {1, 16, 35}) {
        SCOPED_TRACE(std::string(isa) + ", " + std::string(info(dtype).name) + ", " +
                     std::to_string(n_rows) + " rows");
        CpuBackend cpu(2, isa, Activations::kInt8);
        PanelCase c(dtype, n_rows, 512);
        f(cpu, c.weight, cpu.place_weight(c.weight));
      }
    }
  }
}

TEST(Panels, AreReadBackAsTheyWereInTheFile) {
  for_each_panel_case([](CpuBackend& cpu, const Tensor& host, const Tensor& placed) {
    EXPECT_EQ(placed.data == host.data, cpu.description().find("8-bit") == std::string::npos);
    std::vector<std::byte> back(host.bytes());
    cpu.read_weight(back.data(), placed);
    EXPECT_EQ(std::memcmp(back.data(), host.data, host.bytes()), 0);
  });
}

TEST(Panels, EndWhenTheyAreDropped) {
  CpuBackend cpu(1, "", Activations::kInt8);
  PanelCase c(DType::kQ8_0, 16, 64);
  for (int i = 0; i < 2; ++i) {
    const Tensor placed = cpu.place_weight(c.weight);
    cpu.drop_weight(placed);
    cpu.drop_weight(c.weight);  // never placed
  }
  std::vector<float> none;
  EXPECT_TRUE(product(cpu, c.weight, none).empty());
}

TEST(Panels, AreATableOfEmbeddingsToo) {
  for_each_panel_case([](CpuBackend& cpu, const Tensor& host, const Tensor& placed) {
    std::vector<std::int32_t> ids = {static_cast<std::int32_t>(host.rows() - 1), 0};
    std::vector<float> out[2];
    for (const bool in_panels : {false, true}) {
      out[in_panels].resize(ids.size() * host.cols());
      cpu(Embed{.out = Tensor(out[in_panels].data(), DType::kF32, {2, host.cols()}),
                .table = in_panels ? placed : host,
                .ids = Tensor(ids.data(), DType::kI32, {2})});
    }
    EXPECT_EQ(out[true], out[false]);
  });
}

TEST(Panels, GiveTheSameBitsAsTheFileAndForAnyNumberOfTokens) {
  for_each_panel_case([](CpuBackend& cpu, const Tensor& host, const Tensor& placed) {
    std::vector<float> x = activations(30 * host.cols(), 9);
    const std::vector<float> all = product(cpu, placed, x);
    EXPECT_EQ(product(cpu, host, x), all);
    if (placed.data == host.data) return;  // FP32 there, in another order for few tokens
    for (const std::int64_t n_tokens : {1, 2, 3, 4, 7, 12, 13}) {
      std::vector<float> some(x.begin(), x.begin() + n_tokens * host.cols());
      const std::vector<float> y = product(cpu, placed, some);
      EXPECT_TRUE(std::equal(y.begin(), y.end(), all.begin())) << n_tokens;
      EXPECT_EQ(product(cpu, host, some), y) << n_tokens;
    }
  });
}

}  // namespace
}  // namespace qwen::testing
