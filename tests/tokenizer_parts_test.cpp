// The parts of the tokenizer, each by itself: no model is needed.
#include <gtest/gtest.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/tokenizer/bpe.h"
#include "core/tokenizer/merge_queue.h"
#include "core/tokenizer/normalizer.h"
#include "core/tokenizer/pretokenizer.h"
#include "core/tokenizer/utf8.h"
#include "tests/vocabulary_builder.h"

namespace qwen {
namespace {

std::vector<std::string> split(std::string_view text) {
  static const Pretokenizer pretokenizer;
  PieceSplitter splitter(pretokenizer);
  splitter.start(text);
  std::vector<std::string> all;
  for (std::string_view piece; splitter.next(piece);) all.emplace_back(piece);
  return all;
}

TEST(ByteAlphabet, IsGpt2s) {
  EXPECT_EQ(kByteToCodePoint[' '], 0x120);
  EXPECT_EQ(kByteToCodePoint['\n'], 0x10A);
  EXPECT_EQ(kByteToCodePoint['!'], '!');
  EXPECT_EQ(kByteToCodePoint[173], 0x143);
  EXPECT_EQ(kByteToCodePoint[255], 255);
  for (unsigned byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(kCodePointToByte[kByteToCodePoint[byte]], static_cast<int>(byte));
  }
}

TEST(Utf8, TakesEveryCodePointButSurrogates) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    const bool surrogate = c >= 0xD800 && c <= 0xDFFF;
    ASSERT_EQ(find_invalid_utf8(utf8(c)) == std::string::npos, !surrogate)
        << static_cast<unsigned>(c);
    if (!surrogate) {
      ASSERT_EQ(utf8_decode(utf8(c).data()), c);
    }
  }
}

TEST(Pretokenizer, SplitsAsQwen2) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> cases = {
      {"Hello world", {"Hello", " world"}},
      {"it's I'LL you'Re", {"it", "'s", " I", "'LL", " you", "'Re"}},
      {"x'\u017Ft", {"x", "'\u017F", "t"}},  // folds to 's
      {"x'\u212At", {"x", "'\u212At"}},      // the Kelvin sign folds to k: no contraction
      {"1234", {"1", "2", "3", "4"}},
      {"\u0661\u00B2\u2460", {"\u0661", "\u00B2", "\u2460"}},
      {"a  b", {"a", " ", " b"}},
      {"a \n  b", {"a", " \n", " ", " b"}},
      {"a   ", {"a", "   "}},
      {"  !?\r\n\nx", {" ", " !?\r\n\n", "x"}},
      {"(abc)", {"(abc", ")"}},
      {"\u180E\u180E!", {"\u180E\u180E!"}},  // no space, whatever PCRE2 thinks
      {"a\u00A0b \u3000c", {"a", "\u00A0b", " ", "\u3000c"}},
      {"\u001C!", {"\u001C!"}},
      {"\u0085!", {"\u0085", "!"}},
      {"e\u0301a", {"e", "\u0301a"}},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(split(text), expected) << text;
}

// The class of each code point shows in how it is split: letters continue a word, numbers stand
// alone, other characters join the "!" behind them, spaces do not.
TEST(Pretokenizer, ClassesAreTheReferencesForEveryCodePoint) {
  std::ifstream in(QWEN_GOLDEN_DIR "/unicode_classes.json");
  const auto classes = nlohmann::json::parse(in);
  std::vector<char> expected(0x110000, '-');
  for (const char* name : {"L", "N", "S"}) {
    for (const auto& range : classes.at(name)) {
      std::fill(expected.begin() + range.at(0).get<int>(),
                expected.begin() + range.at(1).get<int>() + 1, *name);
    }
  }
  const auto class_of = [](const std::string& c) {
    if (split("x" + c).size() == 1) return 'L';
    if (split(c + c).size() == 2) return 'N';
    if (c != " ") return split(c + "!").size() == 1 ? '-' : 'S';
    return split(c + "x" + c).size() == 2 ? 'S' : '-';
  };
  int n_wrong = 0;
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    const char got = class_of(utf8(c));
    if (got != expected[c] && n_wrong++ < 20) {
      ADD_FAILURE() << "U+" << std::hex << static_cast<unsigned>(c) << ": " << got << ", expected "
                    << expected[c];
    }
  }
  EXPECT_EQ(n_wrong, 0);
}

std::string utf8proc_nfc(const std::string& text) {
  auto* raw = utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(text.c_str()));
  std::string out = reinterpret_cast<const char*>(raw);
  std::free(raw);
  return out;
}

std::string nfc(const std::string& text) {
  std::string buffer;
  return std::string(normalize_nfc(text, buffer));
}

TEST(Normalizer, ComposesAndOrders) {
  EXPECT_EQ(nfc("cafe\u0301"), "caf\u00E9");
  EXPECT_EQ(nfc("\u1112\u1161\u11AB"), "\uD55C");
  EXPECT_EQ(nfc("\uAC00\u11A8"), "\uAC01");
  EXPECT_EQ(nfc("\u212B \u0344"), "\u00C5 \u0308\u0301");
  EXPECT_EQ(nfc("a\u0301\u0316b"), "\u00E1\u0316b");
  EXPECT_EQ(nfc("\u0958"), "\u0915\u093C");  // excluded from composition
  EXPECT_EQ(nfc("\uFB01"), "\uFB01");        // compatibility only
}

TEST(Normalizer, InertCodePointsAreInert) {
  std::vector<bool> follows(0x110000);  // may combine with a character before it
  std::array<utf8proc_int32_t, 32> parts{};
  for (utf8proc_int32_t c = 0; c <= 0x10FFFF; ++c) {
    int boundary = 0;
    const auto n =
        utf8proc_decompose_char(c, parts.data(), parts.size(), UTF8PROC_DECOMPOSE, &boundary);
    for (int i = 1; i < n; ++i)
      follows[static_cast<std::size_t>(parts[static_cast<std::size_t>(i)])] = true;
  }
  for (char32_t c = 1; c <= 0x10FFFF; ++c) {
    if (!is_nfc_inert(c)) continue;
    ASSERT_FALSE(follows[c]) << static_cast<unsigned>(c);
    ASSERT_EQ(utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class, 0);
    ASSERT_EQ(utf8proc_nfc(utf8(c)), utf8(c));
  }
}

TEST(Normalizer, EqualsUtf8procOnRandomText) {
  const std::u32string pool =
      U"aeo \u00E9\u00C5\u0300\u0301\u0316\u0323\u0334\u0345\u0327\u05B0\u1100\u1161\u11A8\uAC00"
      U"\u4E2D\u3042\u304B\u3099\u212B\u0958\u0915\u093C\u1EA5\u0374\u2126\U0001D15E\U0001F600"
      U"\u0653\u0627";
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    for (unsigned n = random() % 12 + 1; n > 0; --n) text += utf8(pool[random() % pool.size()]);
    ASSERT_EQ(nfc(text), utf8proc_nfc(text)) << text;
  }
}

// A quadratic sort would need days for this.
TEST(Normalizer, ManyMarksInTheWrongOrder) {
  std::string text = "a";
  for (int i = 0; i < 1000000; ++i) text += "\u0301\u0316";
  const std::string out = nfc(text);
  EXPECT_EQ(out.substr(0, 4), "\u00E1\u0316");
  EXPECT_EQ(out.size(), 2 + 2 * 1000000 + 2 * 999999u);
}

TEST(Bpe, RankDecidesThenPosition) {
  VocabularyBuilder ab;
  ab.merge("a", "b").merge("b", "c");
  EXPECT_EQ(pieces(Tokenizer(ab.vocabulary()), "abc"), "ab|c");
  VocabularyBuilder bc;
  bc.merge("b", "c").merge("a", "b");
  EXPECT_EQ(pieces(Tokenizer(bc.vocabulary()), "abc"), "a|bc");
  VocabularyBuilder aa;
  aa.merge("a", "a");
  EXPECT_EQ(pieces(Tokenizer(aa.vocabulary()), "aaaaa"), "aa|aa|a");
}

// The definition, word for word: quadratic.
Ids naive_bpe(std::string_view text,
              const std::map<std::pair<int, int>, std::pair<int, int>>& rules) {
  Ids ids(text.begin(), text.end());
  while (true) {
    std::pair<int, int> best = {-1, -1};  // rank, merged
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto rule = rules.find({ids[i], ids[i + 1]});
      if (rule == rules.end() || (best.first >= 0 && rule->second.first >= best.first)) continue;
      best = rule->second;
      at = i;
    }
    if (best.first < 0) return ids;
    ids[at] = best.second;
    ids.erase(ids.begin() + static_cast<long>(at) + 1);
  }
}

// Merges in random order, so that a merge may allow one of lower rank, and one token may be made in
// several ways: no trained vocabulary has that, and both break shortcuts.
TEST(Bpe, FastEqualsTheDefinitionOnRandomMerges) {
  std::mt19937 random(7);
  for (int round = 0; round < 60; ++round) {
    std::vector<std::string> parts = {"a", "b", "c"};
    std::vector<std::pair<std::string, std::string>> rules;
    while (rules.size() < 40) {
      const auto& left = parts[random() % parts.size()];
      const auto& right = parts[random() % parts.size()];
      if (left.size() + right.size() > 10) continue;
      if (std::find(rules.begin(), rules.end(), std::pair(left, right)) != rules.end()) continue;
      rules.emplace_back(left, right);
      parts.push_back(left + right);
    }
    std::shuffle(rules.begin(), rules.end(), random);
    VocabularyBuilder builder;
    for (const auto& part : parts) {
      if (part.size() > 1 &&
          std::find(builder.tokens.begin(), builder.tokens.end(), part) == builder.tokens.end()) {
        builder.add(part);
      }
    }
    for (const auto& [left, right] : rules) builder.merge(left, right);
    const Vocabulary vocabulary = builder.vocabulary();
    const TokenTable tokens(vocabulary.tokens, vocabulary.types);
    const Bpe bpe(tokens, vocabulary.merges);
    std::map<std::pair<int, int>, std::pair<int, int>> by_ids;
    for (const auto& [left, right] : rules) {
      by_ids[{tokens.find(left), tokens.find(right)}] = {static_cast<int>(by_ids.size()),
                                                         tokens.find(left + right)};
    }
    BpeScratch scratch;
    // The last is long enough for the queue's FIFOs.
    for (const std::size_t length : {0u, 1u, 2u, 3u, 7u, 40u, 100u, 192u, 193u, 500u, 4500u}) {
      if (length > 1000 && round % 20 != 0) continue;
      std::string text;
      while (text.size() < length) text += "abcaab"[random() % 6];
      const Ids expected = naive_bpe(text, by_ids);
      Ids got_long;
      bpe.encode_long(text, scratch, got_long);
      ASSERT_EQ(got_long, expected) << text;
      if (length > Bpe::kShortPiece) continue;
      Ids got_short;
      bpe.encode_short(text, got_short);
      ASSERT_EQ(got_short, expected) << text;
    }
  }
}

TEST(MergeQueue, PopsByRankThenPositionInWhateverOrderTheyCame) {
  std::mt19937 random(3);
  for (const std::size_t n_bytes : {100u, 10000u}) {  // heap alone, with FIFOs
    MergeQueue queue;
    queue.prepare(5, n_bytes);
    std::multimap<std::pair<std::uint32_t, std::uint32_t>, int> expected;
    for (int i = 0; i < 20000; ++i) {
      if (random() % 5 < 3) {
        const MergeCandidate c = {
            static_cast<std::uint32_t>(random() % 5),
            static_cast<std::uint32_t>(random() % 50 + static_cast<unsigned>(i) / 4)};
        queue.push(c);
        expected.insert({{c.rank, c.pos}, 0});
      } else if (const auto got = queue.pop()) {
        ASSERT_EQ(std::pair(got->rank, got->pos), expected.begin()->first);
        expected.erase(expected.begin());
      }
    }
    while (const auto got = queue.pop()) {
      ASSERT_EQ(std::pair(got->rank, got->pos), expected.begin()->first);
      expected.erase(expected.begin());
    }
    EXPECT_TRUE(expected.empty());
  }
}

}  // namespace
}  // namespace qwen
