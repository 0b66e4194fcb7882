// Every malformed file of the list is refused by its code and place, at no cost; every valid one is
// loaded and runs a step.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <limits>
#include <map>
#include <string>

#include "core/kv_cache.h"
#include "loader/scan.h"
#include "tests/allocation_peak.h"
#include "tests/error_of.h"
#include "tests/hostile_cases.h"
#include "tests/hostile_load.h"

namespace qwen::testing {
namespace {

constexpr std::size_t kMaxExtraBytes = 64 << 20;

// For names of tests: letters, digits and underscores.
std::string plain(std::string name) {
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

// Code and message of each case, as they were reviewed. A line: name, code, message.
const std::map<std::string, std::string>& reviewed_messages() {
  static const auto all = [] {
    std::map<std::string, std::string> lines;
    std::ifstream in(QWEN_GOLDEN_DIR "/refusals.tsv");
    for (std::string line; std::getline(in, line);) {
      const std::size_t tab = line.find('\t');
      if (tab != line.npos) lines[line.substr(0, tab)] = line.substr(tab + 1);
    }
    return lines;
  }();
  return all;
}

ErrorInfo load(Bytes file) {
  const auto source = from_memory(std::move(file), "file.gguf");
  return error_of([&] { load_and_step(source); });
}

class Hostile : public ::testing::TestWithParam<HostileCase> {};

TEST_P(Hostile, IsRefusedByItsCodeAndPlace) {
  const HostileCase& c = GetParam();
  const auto source = from_memory(c.file(), "file.gguf");
  const AllocationPeak peak;
  const ErrorInfo e = error_of([&] { load_and_step(source); });
  EXPECT_LE(peak.bytes(), kMaxExtraBytes);
  EXPECT_EQ(e.code, c.code) << e.message;
  EXPECT_EQ(e.exit, Exit::kModel);
  EXPECT_EQ(e.file, "file.gguf");
  if (c.subject.empty()) {
    EXPECT_TRUE(e.offset.has_value()) << e.message;
  } else {
    EXPECT_TRUE(e.key == c.subject || e.tensor == c.subject)
        << "key '" << e.key << "', tensor '" << e.tensor << "': " << e.message;
  }
  const auto reviewed = reviewed_messages().find(c.name);
  EXPECT_EQ(e.code + "\t" + e.message,
            reviewed == reviewed_messages().end() ? "none" : reviewed->second)
      << c.name;
  for (const char letter : e.message) EXPECT_TRUE(letter >= 0x20 && letter < 0x7f) << e.message;
  EXPECT_LT(e.message.size(), 300u);
}

INSTANTIATE_TEST_SUITE_P(List, Hostile, ::testing::ValuesIn(hostile_cases()), [](const auto& test) {
  return "No" + std::to_string(test.param.number) + "_" + plain(test.param.name);
});

class Valid : public ::testing::TestWithParam<ValidCase> {};

TEST_P(Valid, IsLoadedAndRuns) {
  const Bytes file = GetParam().file();
  const ErrorInfo e = load(file);
  EXPECT_EQ(e.code, "") << e.message;
  parse_and_touch(from_memory(file, "file.gguf"));
}

INSTANTIATE_TEST_SUITE_P(Controls, Valid, ::testing::ValuesIn(valid_cases()),
                         [](const auto& test) { return plain(test.param.name); });

// Cases 1-92 but those that need no bytes of their own: 32 and 79 are elsewhere.
TEST(HostileList, HasEveryNumber) {
  std::map<int, int> n_cases;
  for (const HostileCase& c : hostile_cases()) ++n_cases[c.number];
  for (int number = 1; number <= 92; ++number) {
    if (number == 32 || number == 79) continue;
    EXPECT_GT(n_cases[number], 0) << number;
  }
}

TEST(HostileList, NamesAreUniqueAndEachHasAMessage) {
  std::map<std::string, int> n_cases;
  for (const HostileCase& c : hostile_cases()) ++n_cases[c.name];
  for (const auto& [name, n] : n_cases) EXPECT_EQ(n, 1) << name;
  EXPECT_EQ(n_cases.size(), reviewed_messages().size());
}

// Case 15. The time that it takes is shown by make_hostile_files.
TEST(HostileList, AMillionTinyKeysAreLoaded) {
  const Bytes file = edited([](auto& w) { add_tiny_keys(w, 1000000); })();
  const ErrorInfo e = load(file);
  EXPECT_EQ(e.code, "") << e.message;
  const Gguf gguf = Gguf::parse(from_memory(file, "file.gguf"));
  EXPECT_NE(gguf.find("999999"), nullptr);
  EXPECT_EQ(gguf.find("1000000"), nullptr);
}

// Case 97: a scan that is asked for names what a load accepts.
TEST(HostileList, AScanNamesTheBlockThatIsNotFinite) {
  const auto scan = [](const ValidCase& c) {
    return find_not_finite(Gguf::parse(from_memory(c.file(), "file.gguf")));
  };
  for (const ValidCase& c : valid_cases()) {
    const auto found = scan(c);
    ASSERT_EQ(found.has_value(), c.name == "scale_not_a_number") << c.name;
    if (!found) continue;
    EXPECT_EQ(found->tensor, "blk.0.attn_q.weight");
    EXPECT_EQ(found->block, 1);
  }
}

// Case 96.
TEST(HostileList, TheSizeOfACacheCannotWrap) {
  KvCacheShape shape{.n_layers = 512,
                     .n_kv_heads = 1 << 20,
                     .head_dim = 256,
                     .n_seqs = 1 << 10,
                     .ctx = 1 << 30,
                     .dtype = DType::kF32};
  EXPECT_EQ(shape.bytes(), std::size_t{std::numeric_limits<std::int64_t>::max()});
  shape = {
      .n_layers = 2, .n_kv_heads = 1, .head_dim = 16, .n_seqs = 3, .ctx = 1, .dtype = DType::kF32};
  EXPECT_EQ(shape.bytes(), std::size_t{2} * 2 * 3 * KvCache::kPageTokens * 16 * 4);
}

}  // namespace
}  // namespace qwen::testing
