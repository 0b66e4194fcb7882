// Malformed files: each is refused with its own code, names what is wrong, and costs nothing. The
// numbers are those of the list of malformed inputs that the loader was written against.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "loader/gguf.h"
#include "loader/vocabulary.h"
#include "tests/error_of.h"
#include "tests/fixtures/small_gguf.h"
#include "tests/fixtures/tiny_model.h"

namespace qwen {
namespace {

using fixtures::append;
using fixtures::Bytes;
using fixtures::GgufWriter;
using fixtures::kArrayId;
using fixtures::small_gguf;

constexpr std::uint64_t kMax = UINT64_MAX;

// What must be named: the key, the tensor, or else a byte offset.
struct Expected {
  std::string code;
  std::string key = {};
  std::string tensor = {};
};

struct Case {
  int number;
  std::string name;
  std::function<Bytes()> file;
  Expected expected;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.number << " " << c.name; }

// A change of the writer before the file is made.
std::function<Bytes()> edited(std::function<void(GgufWriter&)> edit) {
  return [edit] {
    GgufWriter w = small_gguf();
    edit(w);
    return w.bytes();
  };
}

// The first `size` bytes of the valid file, then `more`.
std::function<Bytes()> cut(std::size_t size, std::string more = {}) {
  return [=] {
    Bytes file = small_gguf().bytes();
    file.resize(size);
    for (const char c : more) append(file, c);
    return file;
  };
}

// The file up to a pair "bad" whose value is given by its raw parts, ends there.
std::function<Bytes()> raw_value(std::uint32_t type, std::vector<std::uint64_t> u64s,
                                 std::optional<std::uint32_t> element = {}) {
  return edited([=](GgufWriter& w) {
    Bytes value;
    if (element) append(value, *element);
    for (const std::uint64_t v : u64s) append(value, v);
    w.set_raw("bad", type, value);
  });
}

// A key that replaces the first one, with the length that the file shall claim.
std::function<Bytes()> key_length(std::uint64_t length) {
  return [=] {
    Bytes file = small_gguf().bytes();
    std::memcpy(file.data() + 24, &length, sizeof length);
    return file;
  };
}

std::function<Bytes()> key(std::string name) {
  return edited([=](GgufWriter& w) { w.pairs.push_back({name, 0, Bytes(1)}); });
}

std::function<Bytes()> alignment(std::uint32_t value) {
  return edited([=](GgufWriter& w) { w.set("general.alignment", value); });
}

std::function<Bytes()> tensor(std::function<void(GgufWriter::TensorItem&)> edit) {
  return edited([=](GgufWriter& w) { edit(w.tensor("b")); });
}

std::function<Bytes()> shape(std::vector<std::uint64_t> ne, std::uint32_t type = 0) {
  return tensor([=](auto& t) {
    t.ne = ne;
    t.type = type;
  });
}

// n_dims of tensor b, without the dimensions that it promises.
std::function<Bytes()> rank(std::uint32_t n_dims) {
  return [=] {
    GgufWriter w = small_gguf();
    Bytes file = w.bytes();
    // The info of b ends 4 + 2 * 8 + 4 + 8 bytes after n_dims; c's (one letter, one dimension)
    // follows.
    const std::size_t info_of_c = 8 + 1 + 4 + 8 + 4 + 8;
    std::memcpy(file.data() + w.head().size() - info_of_c - 32, &n_dims, sizeof n_dims);
    return file;
  };
}

// Two tensors of 2^62 bytes each.
void two_huge_tensors(GgufWriter& w) {
  w.tensor("b").ne = {std::uint64_t{1} << 60};
  w.tensor("b").type = 0;
  w.tensor("c").ne = {std::uint64_t{1} << 60};
  w.tensor("c").type = 0;
  w.tensor("c").offset = 128 + (std::uint64_t{1} << 62);
}

std::function<Bytes()> split(std::uint16_t number, std::uint16_t count) {
  return edited([=](GgufWriter& w) {
    w.set("split.no", number);
    w.set("split.count", count);
  });
}

std::vector<Case> cases() {
  return {
      {1, "empty", cut(0), {"truncated_header"}},
      {2, "magic_only", cut(4), {"truncated_header"}},
      {4, "wrong_magic", cut(0, "PK\x03\x04 something else, long enough"), {"bad_magic"}},
      {5, "ggjt", cut(0, "tjgg........................"), {"legacy_format"}},
      {6, "version_0", edited([](auto& w) { w.version = 0; }), {"unsupported_version"}},
      {7, "version_1", edited([](auto& w) { w.version = 1; }), {"unsupported_version"}},
      {8, "version_4", edited([](auto& w) { w.version = 4; }), {"unsupported_version"}},
      {9, "byte_swapped", edited([](auto& w) { w.version = 3u << 24; }), {"big_endian"}},
      {10, "tensors_max", edited([](auto& w) { w.n_tensors = kMax; }), {"too_many_tensors"}},
      {11,
       "tensors_wrap",
       edited([](auto& w) { w.n_tensors = kMax / 32 + 2; }),
       {"too_many_tensors"}},
      {12, "keys_max", edited([](auto& w) { w.n_keys = kMax; }), {"too_many_keys"}},
      {13, "keys_wrap", edited([](auto& w) { w.n_keys = kMax / 13 + 2; }), {"too_many_keys"}},
      {14, "keys_past_end", edited([](auto& w) { w.n_keys = 500; }), {"too_many_keys"}},
      {15,
       "a_million_keys",
       edited([](auto& w) {
         for (int i = 0; i < 1000000; ++i) w.pairs.push_back({std::to_string(i), 0, Bytes(1)});
       }),
       {"too_many_keys"}},
      {16, "key_length_max", key_length(kMax), {"string_past_end"}},
      {17, "key_past_end", key_length(100000), {"string_past_end"}},
      {18, "key_length_2_31", key_length(1u << 31), {"string_past_end"}},
      {19, "empty_key", key(""), {"empty_key"}},
      {20, "duplicate_key", key("test.f32"), {"duplicate_key", "test.f32"}},
      {21, "key_with_nul", key(std::string("a\0b", 3)), {"bad_key", "a\\x00b"}},
      {21, "key_with_newline", key("a\nb"), {"bad_key", "a\\x0ab"}},
      {21, "key_not_utf8", key("a\xc0\xaf"), {"bad_key", "a\\xc0\\xaf"}},
      {21, "key_with_surrogate", key("\xed\xa0\x80"), {"bad_key", "\\xed\\xa0\\x80"}},
      {22, "key_too_long", key(std::string(65537, 'k')), {"key_too_long"}},
      {23, "value_type_13", raw_value(13, {0}), {"unknown_value_type", "bad"}},
      {23, "value_type_negative", raw_value(0xffffffff, {0}), {"unknown_value_type", "bad"}},
      {24, "element_type_13", raw_value(kArrayId, {1, 0}, 13), {"unknown_element_type", "bad"}},
      {25, "array_wraps", raw_value(kArrayId, {kMax / 4 + 2}, 4), {"array_past_end", "bad"}},
      {26, "array_past_end", raw_value(kArrayId, {100000}, 0), {"array_past_end", "bad"}},
      {27, "strings_wrap", raw_value(kArrayId, {kMax / 8 + 2}, 8), {"array_past_end", "bad"}},
      {28, "string_negative", raw_value(8, {kMax - 4}), {"string_past_end", "bad"}},
      {29,
       "last_string_past_end",
       raw_value(kArrayId, {2, 0, 5000}, 8),
       {"string_past_end", "bad"}},
      {30, "nested", raw_value(kArrayId, {1, 0, 0}, 9), {"nested_array", "bad"}},
      {31,
       "nested_deep",
       edited([](auto& w) {
         Bytes value;
         for (int i = 0; i < 100000; ++i) {
           append(value, kArrayId);
           append(value, std::uint64_t{1});
         }
         w.set_raw("bad", kArrayId, value);
       }),
       {"nested_array", "bad"}},
      {33,
       "bool_2",
       edited([](auto& w) { w.set_raw("bad", 7, Bytes(1, std::byte{2})); }),
       {"bad_bool", "bad"}},
      {33, "bool_2_in_array", raw_value(kArrayId, {8, 0x0200}, 7), {"bad_bool", "bad"}},
      {35, "alignment_0", alignment(0), {"bad_alignment", "general.alignment"}},
      {36, "alignment_24", alignment(24), {"bad_alignment", "general.alignment"}},
      {36, "alignment_4", alignment(4), {"bad_alignment", "general.alignment"}},
      {37, "alignment_2_31", alignment(1u << 31), {"bad_alignment", "general.alignment"}},
      {38,
       "alignment_u64",
       edited([](auto& w) { w.set("general.alignment", std::uint64_t{32}); }),
       {"wrong_type", "general.alignment"}},
      {39, "rank_0", rank(0), {"bad_rank", "", "b"}},
      {40, "rank_5", rank(5), {"bad_rank", "", "b"}},
      {40, "rank_255", rank(255), {"bad_rank", "", "b"}},
      {40, "rank_max", rank(0xffffffff), {"bad_rank", "", "b"}},
      {41, "dim_0", shape({32, 0}), {"bad_dimension", "", "b"}},
      {42, "dim_negative", shape({32, kMax}), {"bad_dimension", "", "b"}},
      {43, "product_wraps", shape({1ull << 32, 1ull << 32}), {"shape_too_large", "", "b"}},
      {43, "product_wraps_i64", shape({1ull << 32, 1ull << 31}), {"shape_too_large", "", "b"}},
      {44, "bytes_wrap", shape({1ull << 62}), {"shape_too_large", "", "b"}},
      {45, "sum_wraps", edited(two_huge_tensors), {"tensor_out_of_range", "", "c"}},
      {47, "partial_block", shape({33, 2}, 8), {"partial_block", "", "b"}},
      {48, "type_unknown", shape({32}, 99), {"unsupported_type", "", "b"}},
      {48, "type_negative", shape({32}, 0xffffffff), {"unsupported_type", "", "b"}},
      {48, "type_removed", shape({32}, 4), {"unsupported_type", "", "b"}},
      {48, "type_integer", shape({32}, 24), {"unsupported_type", "", "b"}},
      {49,
       "name_64",
       tensor([](auto& t) { t.name = std::string(64, 'n'); }),
       {"tensor_name_too_long"}},
      {50, "name_empty", tensor([](auto& t) { t.name = ""; }), {"empty_tensor_name"}},
      {51, "name_twice", tensor([](auto& t) { t.name = "a"; }), {"duplicate_tensor", "", "a"}},
      {52,
       "name_with_nul",
       tensor([](auto& t) { t.name = std::string("b\0", 2); }),
       {"bad_tensor_name", "", "b\\x00"}},
      {53, "misaligned", tensor([](auto& t) { t.offset = 129; }), {"misaligned_tensor", "", "b"}},
      {54,
       "past_end",
       tensor([](auto& t) { t.offset = 1 << 20; }),
       {"tensor_out_of_range", "", "b"}},
      {55,
       "offset_wraps",
       tensor([](auto& t) { t.offset = kMax - 31; }),
       {"tensor_out_of_range", "", "b"}},
      {56, "overlap", tensor([](auto& t) { t.offset = 96; }), {"tensor_overlap", "", "b"}},
      {57,
       "gap",
       edited([](auto& w) { w.tensor("c").offset = 128 + 96 + 32; }),
       {"tensor_out_of_range", "", "c"}},
      {57,
       "gap_inside",
       [] {
         Bytes file = edited([](auto& w) { w.tensor("c").offset = 128 + 96 + 32; })();
         file.resize(file.size() + 32);
         return file;
       },
       {"tensor_gap", "", "c"}},
      {57, "trailing", cut(small_gguf().bytes().size() + 1), {"trailing_data"}},
      {58, "infos_cut", cut(small_gguf().head().size() - 1), {"truncated_tensor_info", "", "c"}},
      {58,
       "metadata_cut",
       [] {
         GgufWriter w = small_gguf();
         w.tensors.clear();
         w.set("last", std::uint32_t{1});
         Bytes file = w.head();
         file.pop_back();
         return file;
       },
       {"truncated_metadata", "last"}},
      {58, "no_data", cut(small_gguf().head().size()), {"truncated_data", "", "a"}},
      {59, "one_byte_short", cut(small_gguf().bytes().size() - 1), {"truncated_data", "", "c"}},
      {60, "shape_above_data", shape({1 << 20}, 1), {"tensor_overlap", "", "c"}},
      {89, "split_0", split(0, 0), {"bad_split", "split.count"}},
      {90, "split_65535", split(0, 65535), {"bad_split", "split.count"}},
      {91, "split_number", split(2, 2), {"bad_split", "split.no"}},
      {92, "split_2", split(1, 2), {"split_file", "split.count"}},
  };
}

// The rules for every refusal of the loader.
void expect_refusal(const ErrorInfo& e, const Expected& expected) {
  EXPECT_EQ(e.code, expected.code) << e.message;
  EXPECT_EQ(e.exit, Exit::kModel);
  EXPECT_EQ(e.key, expected.key) << e.message;
  EXPECT_EQ(e.tensor, expected.tensor) << e.message;
  EXPECT_TRUE(e.offset || !e.key.empty() || !e.tensor.empty()) << e.message;
  EXPECT_FALSE(e.file.empty());
  EXPECT_FALSE(e.message.empty());
  for (const char c : e.message) EXPECT_TRUE(c >= 0x20 && c < 0x7f) << e.message;
  EXPECT_LT(e.message.size(), 300u);
}

class Malformed : public testing::TestWithParam<Case> {};

TEST_P(Malformed, IsRefusedByItsCodeAndNamesThePlace) {
  const Bytes file = GetParam().file();
  expect_refusal(error_of([&] { fixtures::parse_bytes(file); }), GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(List, Malformed, testing::ValuesIn(cases()), [](const auto& test) {
  return "No" + std::to_string(test.param.number) + "_" + test.param.name;
});

TEST(MalformedMessages, SayWhatIsThereAndWhatIsNeeded) {
  const auto message = [](const std::function<Bytes()>& file) {
    return error_of([&] { fixtures::parse_bytes(file()); }).message;
  };
  const std::size_t size = small_gguf().bytes().size();
  EXPECT_EQ(message(cut(size - 1)), "file is truncated: tensor data ends at " +
                                        std::to_string(size - 1) + " bytes, the header needs " +
                                        std::to_string(size) + " bytes");
  EXPECT_EQ(message(shape({33, 2}, 8)),
            "b: rows of 33 elements are no multiple of the Q8_0 block of 32");
  EXPECT_EQ(message(shape({32}, 16)), "b: tensor type 16 (IQ2_XXS) is not supported");
  EXPECT_EQ(message(alignment(24)),
            "metadata key 'general.alignment': expected a power of two from 8 to 16777216, got 24");
}

// Case 32: the file is long enough for its array, so only a fixed limit can refuse it.
TEST(MalformedFiles, ASparseFileDoesNotCostMemory) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("qwen_sparse_" + std::to_string(getpid()) + ".gguf");
  for (const std::uint32_t element : {0u, 8u}) {
    fixtures::write_file(path,
                         raw_value(kArrayId, {(1ull << 30) / (element == 0 ? 1 : 8)}, element)());
    std::filesystem::resize_file(path, (1ull << 30) + (1 << 20));
    expect_refusal(error_of([&] { Gguf::parse(open_file(path)); }), {"array_too_large", "bad"});
  }
  std::filesystem::remove(path);
}

// Case 93.
TEST(MalformedFiles, WhatIsNoRegularFileIsNotRead) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("qwen_refusal_" + std::to_string(getpid()));
  std::filesystem::create_directory(folder);
  const auto refused = [](const std::string& path) { return error_of([&] { open_file(path); }); };

  const std::string fifo = folder / "fifo", link = folder / "link", empty = folder / "empty";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  std::filesystem::create_symlink(folder / "nothing", link);
  fixtures::write_file(empty, {});
  const std::string socket_path = folder / "socket";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
  const int server = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(bind(server, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);

  expect_refusal(refused(fifo), {"not_a_regular_file"});
  expect_refusal(refused(socket_path), {"not_a_regular_file"});
  expect_refusal(refused(folder), {"not_a_regular_file"});
  expect_refusal(refused("/dev/zero"), {"not_a_regular_file"});
  expect_refusal(refused(link), {"dangling_link"});
  expect_refusal(refused(folder / "absent"), {"file_not_found"});
  expect_refusal(refused(empty), {"empty_file"});
  close(server);
  std::filesystem::remove_all(folder);
}

// Cases 75-79 and the sampling defaults: the parser accepts the file, its readers do not.
TEST(MalformedTokenizer, IsRefusedByKey) {
  const std::string prefix = "tokenizer.ggml.";
  const std::vector<std::pair<Expected, std::function<void(GgufWriter&)>>> list = {
      {{"missing_key", prefix + "model"}, [](auto& w) { w.remove_key("tokenizer.ggml.model"); }},
      {{"unsupported_tokenizer", prefix + "model"},
       [](auto& w) { w.set("tokenizer.ggml.model", std::string("llama")); }},
      {{"missing_key", prefix + "tokens"}, [](auto& w) { w.remove_key("tokenizer.ggml.tokens"); }},
      {{"missing_key", prefix + "token_type"},
       [](auto& w) { w.remove_key("tokenizer.ggml.token_type"); }},
      {{"missing_key", prefix + "merges"}, [](auto& w) { w.remove_key("tokenizer.ggml.merges"); }},
      {{"bad_vocabulary_size", prefix + "tokens"},
       [](auto& w) { w.set_array("tokenizer.ggml.tokens", std::vector<std::string>{}); }},
      {{"bad_vocabulary_size", prefix + "tokens"},
       [](auto& w) {
         w.set_array("tokenizer.ggml.tokens", std::vector<std::string>((1 << 20) + 1));
       }},
      {{"wrong_type", prefix + "tokens"},
       [](auto& w) { w.set_array("tokenizer.ggml.tokens", std::vector<std::uint8_t>(4)); }},
      {{"wrong_type", prefix + "token_type"},
       [](auto& w) { w.set_array("tokenizer.ggml.token_type", std::vector<std::uint8_t>(4, 1)); }},
      {{"vocabulary_mismatch", prefix + "token_type"},
       [](auto& w) { w.set_array("tokenizer.ggml.token_type", std::vector<std::int32_t>(3, 1)); }},
      {{"vocabulary_mismatch", prefix + "scores"},
       [](auto& w) { w.set_array("tokenizer.ggml.scores", std::vector<float>(5)); }},
      {{"bad_token_type", prefix + "token_type"},
       [](auto& w) { w.set_array("tokenizer.ggml.token_type", std::vector<std::int32_t>(4, 7)); }},
      {{"token_id_out_of_range", prefix + "eos_token_id"},
       [](auto& w) { w.set("tokenizer.ggml.eos_token_id", std::uint32_t{4}); }},
      {{"token_id_out_of_range", prefix + "padding_token_id"},
       [](auto& w) { w.set("tokenizer.ggml.padding_token_id", std::uint32_t{0xffffffff}); }},
      {{"wrong_type", prefix + "bos_token_id"},
       [](auto& w) { w.set("tokenizer.ggml.bos_token_id", std::int32_t{1}); }},
      {{"wrong_type", prefix + "add_bos_token"},
       [](auto& w) { w.set("tokenizer.ggml.add_bos_token", std::uint8_t{0}); }},
      {{"template_too_large", "tokenizer.chat_template"},
       [](auto& w) { w.set("tokenizer.chat_template", std::string((1 << 20) + 1, 'x')); }},
      {{"bad_value", "general.sampling.temp"},
       [](auto& w) { w.set("general.sampling.temp", std::numeric_limits<float>::quiet_NaN()); }},
      {{"bad_value", "general.sampling.top_k"},
       [](auto& w) { w.set("general.sampling.top_k", std::int32_t{-1}); }},
      {{"wrong_type", "general.sampling.top_p"},
       [](auto& w) { w.set("general.sampling.top_p", 0.5); }},
  };
  for (const auto& [expected, edit] : list) {
    const Gguf g = fixtures::parse_bytes(edited(edit)());
    SCOPED_TRACE(expected.code + " " + expected.key);
    expect_refusal(error_of([&] {
                     read_tokenizer(g);
                     read_sampling_defaults(g);
                   }),
                   expected);
  }
}

TEST(BrokenModels, AreRefusedAsTheFixtureSays) {
  for (const fixtures::Breakage& breakage : fixtures::breakages()) {
    const auto path = std::filesystem::temp_directory_path() /
                      ("qwen_broken_" + std::to_string(getpid()) + ".gguf");
    fixtures::write_file(path, fixtures::broken_model({}, breakage.name));
    const ErrorInfo e = error_of([&] { read_tokenizer(Gguf::parse(open_file(path))); });
    // An empty code: the parser must accept the file, the model is to refuse it.
    EXPECT_EQ(e.code, breakage.code) << breakage.name;
    std::filesystem::remove(path);
  }
}

// Reads all that an accepted file offers; ASan and UBSan watch.
void touch_everything(const Gguf& g) {
  std::size_t sum = 0;
  for (const MetadataEntry& entry : g.metadata()) {
    const auto* array = std::get_if<GgufArray>(&entry.value);
    if (array == nullptr) continue;
    for (const std::byte byte : array->bytes) sum += static_cast<std::size_t>(byte);
    if (array->type != ValueType::kString) continue;
    for (const std::string_view text : array->strings()) {
      for (const char c : text) sum += static_cast<unsigned char>(c);
    }
  }
  for (const TensorInfo& t : g.tensors()) {
    ASSERT_EQ(t.tensor.bytes(), t.bytes);
    ASSERT_LE(g.data_offset() + t.offset + t.bytes, g.file_bytes());
    std::vector<float> values(static_cast<std::size_t>(t.tensor.size()));
    decode(t.tensor.dtype, t.tensor.data, t.tensor.size(), values.data());
    ASSERT_EQ(g.find_tensor(t.name), &t);
  }
  read_tokenizer(g);
  read_sampling_defaults(g);
  ASSERT_GT(sum, 0u);
}

TEST(Fuzz, EveryTruncationIsRefused) {
  const Bytes file = small_gguf().bytes();
  touch_everything(fixtures::parse_bytes(file));
  for (std::size_t size = 0; size < file.size(); ++size) {
    const ErrorInfo e =
        error_of([&] { fixtures::parse_bytes(Bytes(file.begin(), file.begin() + size)); });
    ASSERT_NE(e.code, "") << "cut to " << size;
    ASSERT_EQ(e.exit, Exit::kModel);
    ASSERT_TRUE(e.offset || !e.key.empty() || !e.tensor.empty()) << e.message;
  }
}

TEST(Fuzz, NoBitFlipCrashes) {
  GgufWriter w = small_gguf();
  fixtures::Random random(3);
  Bytes data;
  append_random(data, DType::kQ4_K, 2048, 1, random);
  w.add_tensor("d", {8, 256}, DType::kQ4_K, data);
  w.set("tokenizer.chat_template", std::string(600, 't'));
  const Bytes file = w.bytes();
  ASSERT_GT(file.size(), 3000u);
  std::size_t refused = 0;
  for (std::size_t bit = 0; bit < file.size() * 8; ++bit) {
    Bytes flipped = file;
    flipped[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    const ErrorInfo e = error_of([&] { touch_everything(fixtures::parse_bytes(flipped)); });
    if (e.code == "") continue;
    ++refused;
    ASSERT_EQ(e.exit, Exit::kModel) << "bit " << bit;
  }
  EXPECT_GT(refused, 1000u);            // lengths, counts, types
  EXPECT_LT(refused, file.size() * 4);  // weights may be anything
}

}  // namespace
}  // namespace qwen
