// Halfs and quantised blocks against independent definitions, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/blocks.h"
#include "core/dtype.h"
#include "core/half.h"

namespace qwen {
namespace {

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }

// IEEE 754's own words: (-1)^s * 2^(e - bias) * (1 + m / 2^10), subnormals with e = 1 and no
// leading one.
double half_by_definition(std::uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 1023;
  const double sign = (half & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(Half, EveryF16IsExactBothWays) {
  for (std::uint32_t h = 0; h < 65536; ++h) {
    const auto half = static_cast<std::uint16_t>(h);
    const float value = f16_to_f32(half);
    const double expected = half_by_definition(half);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value)) << h;
      ASSERT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value)))) << h;
      continue;
    }
    ASSERT_EQ(bits_of(value), bits_of(static_cast<float>(expected))) << h;
    ASSERT_EQ(f32_to_f16(value), half) << h;
  }
}

// To the nearest multiple of the half's unit, by the C library: ties to even, infinity from 65520
// up.
double nearest_half(double value) {
  if (std::isinf(value) || value == 0) return value;
  const double unit = std::ldexp(1, std::max(std::ilogb(value), -14) - 10);
  const double rounded = std::nearbyint(value / unit) * unit;
  return std::abs(rounded) > 65504 ? std::copysign(INFINITY, value) : rounded;
}

// Over every exponent, with mantissas around each rounding boundary.
TEST(Half, RoundingToF16IsToNearestEven) {
  std::uint32_t state = 1;
  for (std::uint32_t top = 0; top < (1u << 16); ++top) {  // sign, exponent, seven bits of mantissa
    for (int k = 0; k < 24; ++k) {
      state = state * 1664525u + 1013904223u;
      const std::uint32_t edges[] = {0u, 1u, 0xfffu, 0x1000u, 0x1001u, 0x2fffu, 0x3000u, 0xffffu};
      const std::uint32_t low = k < 8 ? edges[k] : state >> 16;
      const float value = std::bit_cast<float>(top << 16 | low);
      const std::uint16_t got = f32_to_f16(value);
      if (std::isnan(value)) {
        ASSERT_TRUE((got & 0x7c00) == 0x7c00 && (got & 0x3ff) != 0) << bits_of(value);
      } else {
        ASSERT_EQ(half_by_definition(got), nearest_half(value)) << std::hexfloat << value;
        ASSERT_EQ((got & 0x8000) != 0, std::signbit(value));
      }
    }
  }
}

TEST(Half, EveryBf16IsExactBothWays) {
  for (std::uint32_t h = 0; h < 65536; ++h) {
    const auto half = static_cast<std::uint16_t>(h);
    const float value = bf16_to_f32(half);
    ASSERT_EQ(bits_of(value), h << 16);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(value)))) << h;
    } else {
      ASSERT_EQ(f32_to_bf16(value), half) << h;
    }
  }
}

TEST(Half, RoundingToBf16IsToNearestEven) {
  struct Case {
    std::uint32_t value;
    std::uint16_t expected;
  };
  const Case cases[] = {
      {0x3f807fff, 0x3f80},  // just below the middle
      {0x3f808000, 0x3f80},  // the middle: to even
      {0x3f808001, 0x3f81},  // just above
      {0x3f818000, 0x3f82},  // the middle, odd below: up
      {0x3fffffff, 0x4000},  // the carry runs into the exponent
      {0x7f7fffff, 0x7f80},  // the largest float becomes infinity
      {0xff7fffff, 0xff80},
      {0x00000001, 0x0000},  // subnormals
      {0x00008001, 0x0001},
      {0x7f800001, 0x7fc0},  // a NaN whose payload lies in the lower half stays NaN
      {0x7f800000, 0x7f80},
  };
  for (const Case& c : cases) EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(c.value)), c.expected);
}

TEST(Half, IsUsableInConstantExpressions) {
  static_assert(f16_to_f32(0x3c00) == 1.0f);
  static_assert(f32_to_f16(-2.0f) == 0xc000);
  static_assert(bf16_to_f32(0x3f80) == 1.0f);
  static_assert(BlockQ4_0{.d = 0x3c00, .qs = {0xf0}}.value(0) == -8.0f);
  static_assert(BlockQ4_0{.d = 0x3c00, .qs = {0xf0}}.value(16) == 7.0f);
}

TEST(DTypes, TableIsConsistent) {
  EXPECT_EQ(dtype_table().size(), 17u);
  for (const DTypeInfo& row : dtype_table()) {
    EXPECT_EQ(find_dtype(static_cast<std::uint32_t>(row.dtype)), &row);
    EXPECT_EQ(&info(row.dtype), &row);
    EXPECT_EQ(bytes_of(row.dtype, 3 * row.block_size),
              static_cast<std::size_t>(3 * row.block_bytes));
  }
  for (const std::uint32_t unknown :
       {4u, 5u, 9u, 15u, 16u, 25u, 29u, 31u, 32u, 33u, 36u, 39u, 0x80000000u, 0xffffffffu}) {
    EXPECT_EQ(find_dtype(unknown), nullptr) << unknown;
  }
}

// Every type of the table that holds weights must have golden blocks: a new format fails here until
// make_dequant_goldens.py covers it.
class Dequant : public testing::TestWithParam<DTypeInfo> {};

TEST_P(Dequant, MatchesGoldenBitForBit) {
  const DTypeInfo& type = GetParam();
  const auto path =
      std::filesystem::path(QWEN_GOLDEN_DIR) / "dequant" / (std::string(type.name) + ".bin");
  std::ifstream file(path, std::ios::binary);
  ASSERT_TRUE(file) << path;
  std::uint32_t header[3];
  file.read(reinterpret_cast<char*>(header), sizeof header);
  const std::int64_t blocks = header[0];
  ASSERT_GE(blocks, 32);
  ASSERT_EQ(header[1], type.block_bytes);
  ASSERT_EQ(header[2], type.block_size);

  const std::int64_t n = blocks * type.block_size;
  std::vector<char> raw(static_cast<std::size_t>(blocks * type.block_bytes));
  std::vector<std::uint32_t> expected(static_cast<std::size_t>(n));
  file.read(raw.data(), static_cast<std::streamsize>(raw.size()));
  file.read(reinterpret_cast<char*>(expected.data()), static_cast<std::streamsize>(n * 4));
  ASSERT_TRUE(file) << path << " is cut";
  ASSERT_EQ(file.peek(), std::ifstream::traits_type::eof());

  std::vector<float> got(static_cast<std::size_t>(n));
  decode(type.dtype, raw.data(), n, got.data());
  for (std::int64_t i = 0; i < n; ++i) {
    ASSERT_EQ(bits_of(got[i]), expected[i])
        << type.name << " block " << i / type.block_size << " element " << i % type.block_size
        << ": got " << got[i] << ", expected " << std::bit_cast<float>(expected[i]);
  }
}

std::vector<DTypeInfo> weight_types() {
  std::vector<DTypeInfo> types;
  for (const DTypeInfo& row : dtype_table()) {
    if (row.decode_block != nullptr) types.push_back(row);
  }
  return types;
}

INSTANTIATE_TEST_SUITE_P(AllTypes, Dequant, testing::ValuesIn(weight_types()),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace qwen
