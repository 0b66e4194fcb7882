// The tables of what a file names: nobody can choose names that make them slow, and names that
// change while a table is made do not lead out of it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "core/keyed_hash.h"
#include "core/tokenizer/merge_table.h"
#include "core/tokenizer/token_table.h"
#include "loader/name_index.h"
#include "loader/source.h"
#include "tests/fixtures/gguf_writer.h"
#include "tests/fixtures/random.h"
#include "tests/vocabulary_builder.h"

namespace qwen {
namespace {

// A table of random hashes that is half full has k names in a row for one of them with a
// probability of at most exp(-k (ln 2 - 1/2)) (Chernoff): 256 are never seen.
constexpr std::size_t kLongestProbe = 256;

constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15u;

// What a table without a key would use: multiplications, as known to everybody.
std::uint64_t keyless_hash(const std::string& eight_bytes) {
  std::uint64_t hash = 8 * kMultiplier, word = 0;
  std::memcpy(&word, eight_bytes.data(), sizeof word);
  for (const std::uint64_t w : {word, std::uint64_t{0}}) {
    hash = (hash ^ w) * kMultiplier;
    hash ^= hash >> 32;
  }
  return hash;
}

std::string eight_letters(fixtures::Random& random) {
  std::string text(8, 'a');
  for (char& c : text) c = static_cast<char>('a' + random.below(26));
  return text;
}

// PYTHONHASHSEED=0 python3.11 -c "print(hash(b'...'))": CPython's bytes have this hash, and 0 as
// key.
TEST(KeyedHash, IsSipHash13) {
  const KeyedHash hash(0, 0);
  EXPECT_EQ(hash("a"), 4644417185603328019u);
  EXPECT_EQ(hash("hello"), static_cast<std::uint64_t>(-2096571579003691106));
  EXPECT_EQ(hash("hello wo"), static_cast<std::uint64_t>(-8186413182324996915));
  EXPECT_EQ(hash("hello world 1234"), 6123166992703470761u);
}

// The paper's key and text, as a plain implementation in Python has them, which gives the paper's
// 0xa129ca6149be45e5 for SipHash-2-4.
TEST(KeyedHash, TakesBothHalvesOfItsKey) {
  const KeyedHash hash(0x0706050403020100u, 0x0f0e0d0c0b0a0908u);
  EXPECT_EQ(hash(""), 0xabac0158050fc4dcu);
  EXPECT_EQ(hash(std::string_view("\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16", 15)),
            0xd320d86d2a519956u);
}

// With a key that everybody knows, names could be chosen to collide.
TEST(KeyedHash, EachTableHasOneOfItsOwn) {
  const auto differ = [](const auto& make) { return make().hash()("a") != make().hash()("a"); };
  const VocabularyBuilder builder;
  const Vocabulary v = builder.vocabulary();
  const TokenTable tokens(v.tokens, v.types);
  EXPECT_TRUE(differ([&] { return TokenTable(v.tokens, v.types); }));
  EXPECT_TRUE(differ([&] { return MergeTable(tokens, v.merges); }));
  EXPECT_TRUE(differ([] { return NameIndex(); }));
}

TEST(KeyedHash, EachHasAKeyOfItsOwn) {
  EXPECT_NE(KeyedHash()("hello"), KeyedHash()("hello"));
  EXPECT_NE(KeyedHash()(1), KeyedHash()(1));
  const KeyedHash hash;
  EXPECT_EQ(hash("hello"), hash("hello"));
  EXPECT_NE(hash("hello"), hash("hellp"));
  EXPECT_NE(hash(1), hash(2));
}

TEST(TokenTable, CraftedTokensDoNotCollide) {
  constexpr std::size_t kTokens = 1024;
  VocabularyBuilder builder;
  const std::size_t mask = std::bit_ceil((kTokens + 256) * 2 + 2) - 1;
  fixtures::Random random(1);
  while (builder.tokens.size() < kTokens + 256) {
    std::string token = eight_letters(random);
    if ((keyless_hash(token) & mask) == 0) builder.add(std::move(token));
  }
  const Vocabulary v = builder.vocabulary();
  const TokenTable table(v.tokens, v.types);
  EXPECT_LE(table.longest_probe(), kLongestProbe);
  for (std::int32_t id = 0; id < table.size(); ++id) {
    ASSERT_EQ(table.find(table.spelling(id)), id);
  }
}

TEST(MergeTable, CraftedMergesDoNotCollide) {
  constexpr std::size_t kMerges = 1024, kParts = 2048;
  VocabularyBuilder builder;
  fixtures::Random random(2);
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < kParts; ++i) {
    parts.push_back(eight_letters(random));
    builder.add(parts.back());
  }
  const int shift = 64 - std::countr_zero(std::bit_ceil(kMerges * 2 + 2));
  for (std::uint64_t left = 0; left < kParts; ++left) {
    for (std::uint64_t right = 0; right < kParts && builder.merges.size() < kMerges; ++right) {
      const std::uint64_t key = (256 + left) << 32 | (256 + right);
      if (key * kMultiplier >> shift == 0) builder.merge(parts[left], parts[right]);
    }
  }
  ASSERT_EQ(builder.merges.size(), kMerges);
  const Vocabulary v = builder.vocabulary();
  const TokenTable tokens(v.tokens, v.types);
  const MergeTable merges(tokens, v.merges);
  EXPECT_LE(merges.longest_probe(), kLongestProbe);
  for (std::uint32_t rank = 0; rank < kMerges; ++rank) {
    ASSERT_EQ(merges.rank(merges.rule(rank).left, merges.rule(rank).right), rank);
  }
}

TEST(NameIndex, NamesTheFirstRepetition) {
  const std::vector<std::string> names = {"d", "a", "b", "c", "b", "a", "d", "b"};
  const auto index = [&](std::size_t n) {
    return NameIndex(std::span(names).first(n),
                     [](const std::string& name) { return std::string_view(name); });
  };
  for (int key = 0; key < 8; ++key) {  // each index has a key of its own
    EXPECT_EQ(index(4).find_duplicate(), std::nullopt);
    EXPECT_EQ(index(8).find_duplicate(), std::pair(2u, 4u));
    EXPECT_EQ(index(4).find("c"), 3u);
    EXPECT_EQ(index(4).find("e"), std::nullopt);
  }
}

// Else each would be compared to all before it, which have its hash and other names now.
TEST(NameIndex, ManyNamesThatWereTheSameAreDuplicates) {
  constexpr std::size_t kNames = 1000, kNameBytes = 4;
  std::string text(kNames * kNameBytes, 'k');
  std::vector<std::string_view> names;
  for (std::size_t i = 0; i < kNames; ++i) {
    names.push_back(std::string_view(text).substr(i * kNameBytes, kNameBytes));
  }
  const NameIndex index(std::span<const std::string_view>(names),
                        [](std::string_view name) { return name; });
  for (std::size_t i = 0; i < kNames; ++i) {
    const std::string number = std::to_string(1000 + i);
    number.copy(&text[i * kNameBytes], kNameBytes);
  }
  EXPECT_EQ(index.find_duplicate(), std::pair(0u, 8u));
}

// The names lie in a mapped file, and somebody writes to it all the time.
TEST(NameIndex, NamesMayChangeWhileItIsMade) {
  constexpr std::size_t kNames = 2000, kNameBytes = 12;
  const std::string path =
      std::filesystem::temp_directory_path() / ("qwen_table_test_" + std::to_string(getpid()));
  fixtures::write_file(path, fixtures::Bytes(kNames * kNameBytes));
  const auto source = open_file(path);
  const std::string_view text(reinterpret_cast<const char*>(source->bytes().data()),
                              source->bytes().size());
  std::vector<std::string_view> names;
  for (std::size_t i = 0; i < kNames; ++i) names.push_back(text.substr(i * kNameBytes, kNameBytes));

  std::atomic<bool> done = false;
  std::thread writer([&] {
    const int file = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    fixtures::Random random(3);
    std::string changed(text.size(), 0);
    while (!done) {
      // Only the ends of the names: their beginnings are alike.
      for (std::size_t i = 1; i <= kNames; ++i) {
        changed[i * kNameBytes - 1] = static_cast<char>(random.below(256));
      }
      if (pwrite(file, changed.data(), changed.size(), 0) < 0) break;
    }
    close(file);
  });
  for (int round = 0; round < 400; ++round) {
    const NameIndex index(std::span<const std::string_view>(names),
                          [](std::string_view name) { return name; });
    index.find_duplicate();
    for (const std::string_view name : names) {
      const auto found = index.find(name);
      ASSERT_TRUE(!found || *found < kNames);
    }
  }
  done = true;
  writer.join();
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace qwen
