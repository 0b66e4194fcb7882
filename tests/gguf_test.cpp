// What a valid GGUF file gives: values, tensors, the ModelFile view, tokenizer data, and the tiny
// models that other tests run on.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "core/blocks.h"
#include "loader/gguf.h"
#include "loader/vocabulary.h"
#include "loader/weights.h"
#include "tests/error_of.h"
#include "tests/fixtures/small_gguf.h"
#include "tests/fixtures/tiny_model.h"
#include "tests/fixtures/tiny_vocabulary.h"

namespace qwen {
namespace {

using fixtures::Bytes;
using fixtures::GgufWriter;
using fixtures::parse_bytes;
using fixtures::small_gguf;

TEST(Gguf, ReadsAValueOfEveryType) {
  const Gguf g = parse_bytes(small_gguf().bytes());
  EXPECT_EQ(g.find_as<std::uint8_t>("test.u8"), 200);
  EXPECT_EQ(g.find_as<std::int8_t>("test.i8"), -100);
  EXPECT_EQ(g.find_as<std::uint16_t>("test.u16"), 60000);
  EXPECT_EQ(g.find_as<std::int16_t>("test.i16"), -30000);
  EXPECT_EQ(g.find_as<std::uint32_t>("test.u32"), 4000000000u);
  EXPECT_EQ(g.find_as<std::int32_t>("test.i32"), -2000000000);
  EXPECT_EQ(g.find_as<float>("test.f32"), 0.5f);
  EXPECT_EQ(g.find_as<bool>("test.bool"), true);
  EXPECT_EQ(g.find_as<std::string_view>("test.string"), "caf\u00e9");
  EXPECT_EQ(g.find_as<std::uint64_t>("test.u64"), std::uint64_t{1} << 63);
  EXPECT_EQ(g.find_as<std::int64_t>("test.i64"), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(g.find_as<double>("test.f64"), -0.25);
  EXPECT_EQ(g.find_array<float>("test.empty")->count, 0u);
  EXPECT_EQ(g.find_array<bool>("test.flags")->count, 3u);
  EXPECT_EQ(g.find_array<std::int32_t>("tokenizer.ggml.token_type")->numbers<std::int32_t>(),
            (std::vector<std::int32_t>{1, 1, 1, 3}));
  EXPECT_EQ(g.find_array<std::string_view>("tokenizer.ggml.tokens")->strings(),
            (std::vector<std::string_view>{"a", "b", "ab", "<|im_end|>"}));
  EXPECT_EQ(g.find("absent"), nullptr);
  EXPECT_EQ(g.find_as<float>("absent"), std::nullopt);
}

TEST(Gguf, KeepsTheOrderOfTheFile) {
  const GgufWriter w = small_gguf();
  const Gguf g = parse_bytes(w.bytes());
  ASSERT_EQ(g.metadata().size(), w.pairs.size());
  for (std::size_t i = 0; i < w.pairs.size(); ++i) EXPECT_EQ(g.metadata()[i].key, w.pairs[i].key);
  EXPECT_EQ(g.metadata()[0].offset, 24u);
}

TEST(Gguf, AnotherTypeIsRefusedByName) {
  const Gguf g = parse_bytes(small_gguf().bytes());
  const ErrorInfo e = error_of([&] { g.find_as<std::uint32_t>("test.i32"); });
  EXPECT_EQ(e.code, "wrong_type");
  EXPECT_EQ(e.key, "test.i32");
  EXPECT_EQ(e.message, "metadata key 'test.i32': expected u32, got i32");
  EXPECT_EQ(error_of([&] { g.find_array<float>("tokenizer.ggml.tokens"); }).message,
            "metadata key 'tokenizer.ggml.tokens': expected array of f32, got array of string");
}

// The writer's own idea of where each tensor lies, against the parser's.
void expect_tensors(const GgufWriter& w, const Gguf& g) {
  ASSERT_EQ(g.tensors().size(), w.tensors.size());
  const std::uint64_t head = w.head().size();
  EXPECT_EQ(g.data_offset(), (head + w.alignment - 1) / w.alignment * w.alignment);
  for (const GgufWriter::TensorItem& item : w.tensors) {
    const TensorInfo* t = g.find_tensor(item.name);
    ASSERT_NE(t, nullptr) << item.name;
    EXPECT_EQ(static_cast<std::uint32_t>(t->tensor.dtype), item.type);
    const auto dims = t->tensor.dims();
    EXPECT_TRUE(std::equal(dims.begin(), dims.end(), item.ne.rbegin(), item.ne.rend()));
    EXPECT_EQ(t->bytes, item.data.size());
    EXPECT_EQ(t->tensor.bytes(), item.data.size());
    EXPECT_EQ(g.source()->bytes().data() + g.data_offset() + t->offset, t->tensor.data);
    EXPECT_EQ(std::memcmp(t->tensor.data, item.data.data(), item.data.size()), 0) << item.name;
  }
}

TEST(Gguf, FindsTensorsInEveryLayout) {
  for (const std::uint32_t version : {2u, 3u}) {
    for (const std::uint32_t alignment : {8u, 32u, 64u, 4096u}) {
      GgufWriter w = small_gguf();
      w.version = version;
      w.alignment = alignment;
      if (alignment != 32) w.set("general.alignment", alignment);
      const Gguf g = parse_bytes(w.bytes());
      EXPECT_EQ(g.version(), version);
      EXPECT_EQ(g.alignment(), alignment);
      EXPECT_EQ(g.file_bytes(), w.bytes().size());
      expect_tensors(w, g);
    }
  }
}

TEST(Gguf, AcceptsInfosInAnotherOrderThanTheData) {
  GgufWriter w = small_gguf();
  const Bytes file = w.bytes();
  const Gguf before = parse_bytes(file);
  // The same data section; only the infos change places.
  const Bytes data(file.begin() + static_cast<std::ptrdiff_t>(before.data_offset()), file.end());
  for (auto& t : w.tensors) t.offset = before.find_tensor(t.name)->offset;
  std::reverse(w.tensors.begin(), w.tensors.end());
  Bytes shuffled = w.head();
  shuffled.resize((shuffled.size() + 31) / 32 * 32);
  shuffled.insert(shuffled.end(), data.begin(), data.end());
  expect_tensors(w, parse_bytes(shuffled));
}

TEST(Gguf, PaddingAfterTheLastTensorMayBeAbsent) {
  GgufWriter w = small_gguf();
  w.remove_tensor("c");
  Bytes file = w.bytes();
  file.resize(file.size() - 28);  // b ends 28 bytes before the next multiple of 32
  expect_tensors(w, parse_bytes(file));
}

TEST(Gguf, AFileWithoutTensorsIsValid) {
  GgufWriter w = small_gguf();
  w.tensors.clear();
  EXPECT_TRUE(parse_bytes(w.bytes()).tensors().empty());
  EXPECT_TRUE(parse_bytes(w.head()).tensors().empty());
}

TEST(Gguf, OneSplitOfOneIsNoSplit) {
  GgufWriter w = small_gguf();
  w.set("split.no", std::uint16_t{0});
  w.set("split.count", std::uint16_t{1});
  w.set("split.tensors.count", std::int32_t{3});
  EXPECT_EQ(parse_bytes(w.bytes()).tensors().size(), 3u);
}

TEST(Gguf, ManyKeysTakeLinearTime) {
  GgufWriter w = small_gguf();
  for (int i = 0; i < 60000; ++i) w.pairs.push_back({std::to_string(i), 0, Bytes(1)});
  const Gguf g = parse_bytes(w.bytes());
  EXPECT_NE(g.find("0"), nullptr);
  EXPECT_NE(g.find("59999"), nullptr);
  EXPECT_EQ(g.find("60000"), nullptr);
}

TEST(Source, MapsAFileAndNoticesChanges) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("qwen_gguf_test_" + std::to_string(getpid()) + ".gguf");
  const Bytes bytes = small_gguf().bytes();
  fixtures::write_file(path, bytes);
  const auto source = open_file(path);
  EXPECT_EQ(source->name(), path);
  ASSERT_EQ(source->bytes().size(), bytes.size());
  EXPECT_EQ(std::memcmp(source->bytes().data(), bytes.data(), bytes.size()), 0);
  source->prefetch();
  source->release(source->bytes().subspan(3));
  EXPECT_EQ(std::memcmp(source->bytes().data(), bytes.data(), bytes.size()), 0);
  source->check_unchanged();
  expect_tensors(small_gguf(), Gguf::parse(source));
  const auto written = std::filesystem::last_write_time(path);
  std::filesystem::resize_file(path, bytes.size() - 1);
  std::filesystem::last_write_time(path, written);  // the size alone must tell
  const ErrorInfo e = error_of([&] { source->check_unchanged(); });
  EXPECT_EQ(e.code, "file_changed");
  EXPECT_EQ(e.file, path);
  std::filesystem::remove(path);
}

TEST(GgufModelFile, ReadsTypedValues) {
  const GgufModelFile file(parse_bytes(small_gguf().bytes()));
  EXPECT_EQ(file.u32("test.u32"), 4000000000u);
  EXPECT_EQ(file.f32("test.f32"), 0.5f);
  EXPECT_EQ(file.string("test.string"), "caf\u00e9");
  EXPECT_EQ(file.find_u32("absent"), std::nullopt);
  EXPECT_EQ(error_of([&] { file.u32("absent"); }).code, "missing_key");
  for (const char* key : {"test.u8", "test.i32", "test.u64", "test.f32", "test.bool"}) {
    const ErrorInfo e = error_of([&] { file.find_u32(key); });
    EXPECT_EQ(e.code, "wrong_type") << key;
    EXPECT_EQ(e.key, key);
    EXPECT_EQ(e.exit, Exit::kModel);
  }
  EXPECT_EQ(error_of([&] { file.find_f32("test.f64"); }).code, "wrong_type");
  EXPECT_EQ(error_of([&] { file.find_string("test.flags"); }).code, "wrong_type");
}

TEST(GgufModelFile, HandsOutEveryTensorOnce) {
  GgufModelFile file(parse_bytes(small_gguf().bytes()));
  EXPECT_TRUE(file.has_tensor("a"));
  EXPECT_FALSE(file.has_tensor("z"));
  EXPECT_EQ(shape_string(file.tensor_shape("b")), "(2, 32)");
  EXPECT_EQ(error_of([&] { file.tensor_shape("z"); }).code, "missing_tensor");

  const ErrorInfo shape = error_of([&] { file.take("a", {8, 4}); });
  EXPECT_EQ(shape.code, "wrong_shape");
  EXPECT_EQ(shape.message, "a: expected shape (8, 4), got (4, 8)");
  EXPECT_EQ(shape.tensor, "a");
  EXPECT_EQ(error_of([&] { file.take("c", {16, 1}); }).code, "wrong_shape");
  EXPECT_EQ(error_of([&] { file.take("z", {1}); }).tensor, "z");

  EXPECT_EQ(to_string(file.take("a", {4, 8})), "F32 (4, 8)");
  EXPECT_EQ(error_of([&] { file.take("a", {4, 8}); }).code, "tensor_taken_twice");
  EXPECT_EQ(to_string(file.take("c", {16})), "F16 (16,)");
  const ErrorInfo left = error_of([&] { file.check_all_taken(); });
  EXPECT_EQ(left.code, "unknown_tensor");
  EXPECT_EQ(left.tensor, "b");
  EXPECT_EQ(left.file, "small.gguf");
  file.take("b", {2, 32});
  file.check_all_taken();
}

TEST(Tokenizer, ReadsItsKeys) {
  const Gguf g = parse_bytes(small_gguf().bytes());
  const TokenizerData t = read_tokenizer(g);
  EXPECT_EQ(t.model, "gpt2");
  EXPECT_EQ(t.pre, "qwen2");
  EXPECT_EQ(t.tokens.size(), 4u);
  EXPECT_EQ(t.types, (std::vector<std::int32_t>{1, 1, 1, 3}));
  EXPECT_EQ(t.merges, (std::vector<std::string_view>{"a b"}));
  EXPECT_EQ(t.eos, 3u);
  EXPECT_EQ(t.bos, std::nullopt);
  EXPECT_EQ(t.add_bos, false);
  EXPECT_EQ(t.chat_template, std::nullopt);
  const SamplingDefaults s = read_sampling_defaults(g);
  EXPECT_EQ(s.temp, 0.7f);
  EXPECT_EQ(s.top_k, 20);
  EXPECT_EQ(s.top_p, std::nullopt);
}

TEST(Tokenizer, NoVocabNeedsNoTokens) {
  GgufWriter w = small_gguf();
  w.set("tokenizer.ggml.model", std::string("no_vocab"));
  w.remove_key("tokenizer.ggml.tokens");
  w.remove_key("tokenizer.ggml.merges");
  EXPECT_TRUE(read_tokenizer(parse_bytes(w.bytes())).tokens.empty());
}

class TinyModel : public testing::TestWithParam<DTypeInfo> {};

TEST_P(TinyModel, ParsesAndHoldsFiniteWeightsOfTheTypeAskedFor) {
  for (const bool tied : {true, false}) {
    const Gguf g =
        parse_bytes(fixtures::tiny_model({.dtype = GetParam().dtype, .tied = tied}).bytes());
    EXPECT_EQ(g.tensors().size(), tied ? 26u : 27u);
    EXPECT_EQ(g.find_tensor("output.weight") == nullptr, tied);
    EXPECT_EQ(g.find_tensor("blk.1.attn_q.weight")->tensor.dtype, GetParam().dtype);
    for (const TensorInfo& t : g.tensors()) {
      std::vector<float> values(static_cast<std::size_t>(t.tensor.size()));
      decode(t.tensor.dtype, t.tensor.data, t.tensor.size(), values.data());
      double squares = 0;
      for (const float v : values) squares += static_cast<double>(v) * v;
      const double rms = std::sqrt(squares / static_cast<double>(values.size()));
      EXPECT_TRUE(rms > 1e-3 && rms < 400) << t.name << " " << rms;  // false for NaN
    }
  }
}

std::vector<DTypeInfo> weight_types() {
  std::vector<DTypeInfo> types;
  for (const DTypeInfo& row : dtype_table()) {
    if (row.decode_block != nullptr) types.push_back(row);
  }
  return types;
}

INSTANTIATE_TEST_SUITE_P(AllTypes, TinyModel, testing::ValuesIn(weight_types()),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(TinyModelData, HasTheOutliersThatHideNothing) {
  const Gguf g = parse_bytes(fixtures::tiny_model({}).bytes());
  const float* q = g.find_tensor("blk.1.attn_q.bias")->tensor.f32();
  const float* k = g.find_tensor("blk.1.attn_k.bias")->tensor.f32();
  for (int pair = 0; pair < 32; ++pair) {  // head_dim 64: pairs (i, i + 32), the last are slow
    const float size = pair >= 29 ? 1.0f : pair == 12 ? 0.25f : 0.0f;
    for (const int i : {pair, pair + 32, 64 + pair, 64 + pair + 32}) {
      if (size == 0) {
        EXPECT_LT(std::abs(q[i]), 7) << i;
        EXPECT_LT(std::abs(k[i]), 7) << i;
        continue;
      }
      EXPECT_TRUE(std::abs(q[i]) >= 15 * size && std::abs(q[i]) <= 35 * size) << i;
      EXPECT_TRUE(std::abs(k[i]) >= 100 * size && std::abs(k[i]) <= 450 * size) << i;
    }
  }
}

TEST(TinyModelData, DependsOnTheSeedAndNothingElse) {
  const Bytes one = fixtures::tiny_model({.seed = 1}).bytes();
  EXPECT_EQ(one, fixtures::tiny_model({.seed = 1}).bytes());
  EXPECT_NE(one, fixtures::tiny_model({.seed = 2}).bytes());
}

TEST(TinyModelData, SaysItsHeadDimWhereItIsNotTheQuotient) {
  const Gguf g = parse_bytes(
      fixtures::tiny_model({.n_heads = 5, .n_kv_heads = 1, .head_dim = 128, .dim = 192}).bytes());
  EXPECT_EQ(g.find_as<std::uint32_t>("qwen2.attention.key_length"), 128u);
  EXPECT_EQ(shape_string(g.find_tensor("blk.0.attn_q.weight")->tensor.dims()), "(640, 192)");
}

TEST(TinyVocabulary, EveryMergeMakesAToken) {
  const Gguf g = parse_bytes(fixtures::tiny_model({}).bytes());
  const TokenizerData t = read_tokenizer(g);
  EXPECT_EQ(t.merges.size(), 300u);
  std::set<std::string> tokens;
  for (const std::string_view token : t.tokens) {
    EXPECT_TRUE(tokens.emplace(token).second) << token << " occurs twice";
  }
  for (const std::string_view merge : t.merges) {
    const auto space = merge.find(' ');
    ASSERT_NE(space, std::string_view::npos);
    const std::string left(merge.substr(0, space)), right(merge.substr(space + 1));
    EXPECT_TRUE(tokens.contains(left) && tokens.contains(right) && tokens.contains(left + right));
  }
  EXPECT_EQ(t.tokens[*t.eos], "<|im_end|>");
  EXPECT_EQ(t.types[*t.eos], 3);
  EXPECT_EQ(t.types.back(), 5);
  EXPECT_TRUE(t.chat_template.has_value());
}

// The model behind tests/golden: QWEN_REAL_MODEL is the path of its file.
TEST(RealModel, ParsesAndDecodes) {
  const char* path = std::getenv("QWEN_REAL_MODEL");
  if (path == nullptr) GTEST_SKIP() << "QWEN_REAL_MODEL is not set: the real file was not tested";
  const Gguf g = Gguf::parse(open_file(path));
  EXPECT_EQ(g.tensors().size(), 291u);  // 12 for each of 24 layers, embedding, final norm, head
  const TokenizerData t = read_tokenizer(g);
  EXPECT_EQ(t.tokens.size(), 151936u);
  EXPECT_EQ(t.merges.size(), 151387u);
  EXPECT_EQ(t.tokens[*t.eos], "<|im_end|>");
  EXPECT_TRUE(t.chat_template.has_value());

  std::set<DType> seen;
  for (const TensorInfo& info : g.tensors()) {
    if (!seen.insert(info.tensor.dtype).second) continue;
    std::vector<float> values(static_cast<std::size_t>(info.tensor.size()));
    decode(info.tensor.dtype, info.tensor.data, info.tensor.size(), values.data());
    double squares = 0;
    for (const float v : values) squares += static_cast<double>(v) * v;
    const double rms = std::sqrt(squares / static_cast<double>(values.size()));
    EXPECT_TRUE(rms > 1e-3 && rms < 100) << info.name << " " << rms;
  }
  EXPECT_TRUE(seen.contains(DType::kF32) && seen.contains(DType::kQ5_0) &&
              seen.contains(DType::kQ8_0));
}

}  // namespace
}  // namespace qwen
