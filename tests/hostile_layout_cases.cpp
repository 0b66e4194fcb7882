#include <cstring>
#include <limits>
#include <optional>
#include <string_view>

#include "tests/hostile_cases.h"

namespace qwen::testing {
namespace {

using fixtures::append;
using fixtures::kArrayId;

constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
constexpr const char* kMatrix = "blk.0.attn_q.weight";  // (32, 32) Q8_0, 1088 bytes
constexpr const char* kNext = "blk.0.attn_q.bias";      // right after it
constexpr const char* kLast = "output_norm.weight";     // (32) F32, 128 bytes

// The first `size` bytes of the valid file, then `more`.
std::function<Bytes()> cut(std::size_t size, const std::string& more = {}) {
  return [=] {
    Bytes file = valid_model().bytes();
    file.resize(size);
    for (const char c : more) append(file, c);
    return file;
  };
}

// The valid file without its last `n` bytes; or with -n more.
std::function<Bytes()> shorter(std::int64_t n) {
  return [=] {
    Bytes file = valid_model().bytes();
    file.resize(file.size() - static_cast<std::size_t>(n));
    return file;
  };
}

// A pair "bad" at the end of the metadata, its value given by its raw parts.
std::function<Bytes()> raw_value(std::uint32_t type, const std::vector<std::uint64_t>& u64s,
                                 std::optional<std::uint32_t> element = {}) {
  return edited([=](GgufWriter& w) {
    Bytes value;
    if (element) append(value, *element);
    for (const std::uint64_t v : u64s) append(value, v);
    w.set_raw("bad", type, value);
  });
}

// The length that the first key claims to have.
std::function<Bytes()> key_length(std::uint64_t length) {
  return [=] {
    Bytes file = valid_model().bytes();
    std::memcpy(file.data() + 24, &length, sizeof length);
    return file;
  };
}

std::function<Bytes()> key(const std::string& name) {
  return edited([=](GgufWriter& w) { w.pairs.push_back({name, 0, Bytes(1)}); });
}

std::function<Bytes()> alignment(std::uint32_t value) {
  return edited([=](GgufWriter& w) { w.set("general.alignment", value); });
}

std::function<Bytes()> tensor(const std::function<void(GgufWriter::TensorItem&)>& edit) {
  return edited([=](GgufWriter& w) { edit(w.tensor(kMatrix)); });
}

std::function<Bytes()> shape(const std::vector<std::uint64_t>& ne, std::uint32_t type = 0) {
  return tensor([=](auto& t) {
    t.ne = ne;
    t.type = type;
  });
}

// n_dims without the dimensions that it promises.
std::function<Bytes()> rank(std::uint32_t n_dims) {
  return tensor([=](auto& t) { t.n_dims = n_dims; });
}

// Where the data of a tensor lies in the valid file, from the start of the data section.
std::uint64_t offset_of(std::string_view name) {
  std::uint64_t offset = 0;
  for (const auto& t : valid_model().tensors) {
    if (t.name == name) break;
    offset += (t.data.size() + 31) / 32 * 32;
  }
  return offset;
}

std::function<Bytes()> moved(const std::string& name, std::int64_t by) {
  return edited([=](GgufWriter& w) {
    w.tensor(name).offset = offset_of(name) + static_cast<std::uint64_t>(by);
  });
}

// F32 tensors of 2^62 bytes each, the last ones of the file.
std::function<Bytes()> huge_tensors(int n) {
  return edited([=](GgufWriter& w) {
    std::uint64_t offset = offset_of(kLast) + 128;
    for (int i = 0; i < n; ++i, offset += std::uint64_t{1} << 62) {
      w.tensors.push_back(
          {"huge" + std::to_string(i), {std::uint64_t{1} << 60}, 0, Bytes(32), offset});
    }
  });
}

// One tensor that ends 32 bytes below 2^63: only with the data section's own offset is it too far.
void up_to_the_limit(GgufWriter& w) {
  GgufWriter::TensorItem& t = w.tensor(kLast);
  t.ne = {((std::uint64_t{1} << 63) - 64 - offset_of(kLast)) / 4};
}

void nest(GgufWriter& w, int depth) {
  Bytes value;
  for (int i = 0; i < depth; ++i) {
    append(value, kArrayId);
    append(value, std::uint64_t{1});
  }
  w.set_raw("bad", kArrayId, value);
}

void cut_header(std::vector<HostileCase>& cases) {
  for (std::size_t size = 1; size < 24; ++size) {
    cases.push_back(
        {size == 4 ? 2 : 3, "cut_at_" + std::to_string(size), cut(size), "truncated_header"});
  }
}

std::vector<HostileCase> header_cases() {
  const auto version = [](std::uint32_t v) {
    return edited([=](GgufWriter& w) { w.version = v; });
  };
  const auto tensors = [](std::uint64_t n) {
    return edited([=](GgufWriter& w) { w.n_tensors = n; });
  };
  const auto keys = [](std::uint64_t n) { return edited([=](GgufWriter& w) { w.n_keys = n; }); };
  return {
      {1, "empty", cut(0), "truncated_header"},
      {4, "wrong_magic", cut(0, "PK\x03\x04 something else, long enough"), "bad_magic"},
      {5, "ggjt", cut(0, "tjgg........................"), "legacy_format"},
      {6, "version_0", version(0), "unsupported_version"},
      {7, "version_1", version(1), "unsupported_version"},
      {8, "version_4", version(4), "unsupported_version"},
      {9, "byte_swapped", version(3u << 24), "big_endian"},
      {10, "tensors_max", tensors(kMax), "too_many_tensors"},
      {11, "tensors_wrap", tensors(kMax / 32 + 2), "too_many_tensors"},
      {12, "keys_max", keys(kMax), "too_many_keys"},
      {13, "keys_wrap", keys(kMax / 13 + 2), "too_many_keys"},
      {14, "keys_past_end", keys(50000), "too_many_keys"},
      {11, "tensors_above_the_limit", edited([](auto& w) {
         w.n_tensors = 65537;
         w.set("long", std::string(4 << 20, 'x'));
       }),
       "too_many_tensors"},
      {15, "keys_above_the_limit", edited([](auto& w) { add_tiny_keys(w, 1 << 20); }),
       "too_many_keys"},
  };
}

std::vector<HostileCase> pair_cases() {
  return {
      {16, "key_length_max", key_length(kMax), "string_past_end"},
      {17, "key_past_end", key_length(100000), "string_past_end"},
      {18, "key_length_2_31", key_length(1u << 31), "string_past_end"},
      {18, "key_length_2_32", key_length(1ull << 32), "string_past_end"},
      {19, "empty_key", key(""), "empty_key"},
      {20, "duplicate_key", key("qwen2.block_count"), "duplicate_key", "qwen2.block_count"},
      {21, "key_with_nul", key(std::string("a\0b", 3)), "bad_key", "a\\x00b"},
      {21, "key_with_newline", key("a\nb"), "bad_key", "a\\x0ab"},
      {21, "key_not_utf8", key("a\xc0\xaf"), "bad_key", "a\\xc0\\xaf"},
      {21, "key_with_surrogate", key("\xed\xa0\x80"), "bad_key", "\\xed\\xa0\\x80"},
      {22, "key_too_long", key(std::string(65537, 'k')), "key_too_long"},
      {23, "value_type_13", raw_value(13, {0}), "unknown_value_type", "bad"},
      {23, "value_type_negative", raw_value(0xffffffff, {0}), "unknown_value_type", "bad"},
      {24, "element_type_13", raw_value(kArrayId, {1, 0}, 13), "unknown_element_type", "bad"},
      {25, "array_wraps", raw_value(kArrayId, {kMax / 4 + 2}, 4), "array_past_end", "bad"},
      {26, "array_past_end", raw_value(kArrayId, {100000}, 0), "array_past_end", "bad"},
      {27, "strings_wrap", raw_value(kArrayId, {kMax / 8 + 2}, 8), "array_past_end", "bad"},
      {28, "string_negative", raw_value(8, {kMax - 4}), "string_past_end", "bad"},
      {29, "last_string_past_end", raw_value(kArrayId, {2, 0, 90000}, 8), "string_past_end", "bad"},
      {30, "nested", raw_value(kArrayId, {1, 0, 0}, 9), "nested_array", "bad"},
      {31, "nested_deep", edited([](auto& w) { nest(w, 100000); }), "nested_array", "bad"},
      {33, "bool_2", edited([](auto& w) { w.set_raw("bad", 7, Bytes(1, std::byte{2})); }),
       "bad_bool", "bad"},
      {33, "bool_2_in_array", raw_value(kArrayId, {8, 0x0200}, 7), "bad_bool", "bad"},
      {35, "alignment_0", alignment(0), "bad_alignment", "general.alignment"},
      {36, "alignment_24", alignment(24), "bad_alignment", "general.alignment"},
      {36, "alignment_4", alignment(4), "bad_alignment", "general.alignment"},
      {37, "alignment_2_31", alignment(1u << 31), "bad_alignment", "general.alignment"},
      {38, "alignment_u64", edited([](auto& w) { w.set("general.alignment", std::uint64_t{32}); }),
       "wrong_type", "general.alignment"},
  };
}

std::vector<HostileCase> info_cases() {
  return {
      {39, "rank_0", rank(0), "bad_rank", kMatrix},
      {40, "rank_5", rank(5), "bad_rank", kMatrix},
      {40, "rank_255", rank(255), "bad_rank", kMatrix},
      {40, "rank_max", rank(0xffffffff), "bad_rank", kMatrix},
      {41, "dim_0", shape({32, 0}), "bad_dimension", kMatrix},
      {42, "dim_negative", shape({32, kMax}), "bad_dimension", kMatrix},
      {43, "product_wraps", shape({1ull << 32, 1ull << 32}), "shape_too_large", kMatrix},
      {43, "product_wraps_i64", shape({1ull << 32, 1ull << 31}), "shape_too_large", kMatrix},
      {44, "bytes_wrap", shape({1ull << 62}), "shape_too_large", kMatrix},
      {45, "sum_wraps", huge_tensors(5), "tensor_out_of_range", "huge1"},
      {46, "sum_and_overhead_wrap", edited(up_to_the_limit), "tensor_out_of_range", kLast},
      {47, "partial_block", shape({33, 2}, 8), "partial_block", kMatrix},
      {48, "type_unknown", shape({32}, 99), "unsupported_type", kMatrix},
      {48, "type_negative", shape({32}, 0xffffffff), "unsupported_type", kMatrix},
      {48, "type_removed", shape({32}, 4), "unsupported_type", kMatrix},
      {48, "type_integer", shape({32}, 24), "unsupported_type", kMatrix},
      {49, "name_64", tensor([](auto& t) { t.name = std::string(64, 'n'); }),
       "tensor_name_too_long"},
      {50, "name_empty", tensor([](auto& t) { t.name = ""; }), "empty_tensor_name"},
      {51, "name_twice", tensor([](auto& t) { t.name = kLast; }), "duplicate_tensor", kLast},
      {52, "name_with_nul", tensor([](auto& t) { t.name = std::string("b\0", 2); }),
       "bad_tensor_name", "b\\x00"},
      {61, "half_way", edited([](auto& w) { w.tensors[w.tensors.size() / 2].type = 99; }),
       "unsupported_type", "blk.0.attn_v.bias"},
  };
}

std::vector<HostileCase> data_cases() {
  return {
      {53, "misaligned", moved(kMatrix, 1), "misaligned_tensor", kMatrix},
      {54, "past_end", moved(kLast, 1 << 20), "tensor_out_of_range", kLast},
      {55, "offset_wraps", tensor([](auto& t) { t.offset = kMax - 31; }), "tensor_out_of_range",
       kMatrix},
      {56, "overlap", moved(kMatrix, -32), "tensor_overlap", kMatrix},
      {56, "same_place", edited([](auto& w) { w.tensor(kNext).offset = offset_of(kMatrix); }),
       "tensor_overlap", kNext},
      {57, "gap", moved(kLast, 32), "tensor_out_of_range", kLast},
      {57, "gap_inside",
       [] {
         Bytes file = moved(kLast, 32)();
         file.resize(file.size() + 32);
         return file;
       },
       "tensor_gap", kLast},
      {57, "trailing", shorter(-1), "trailing_data"},
      {58, "infos_cut", [] { return cut(valid_model().head().size() - 1)(); },
       "truncated_tensor_info", kLast},
      {58, "metadata_cut",
       [] {
         GgufWriter w = valid_model();
         w.tensors.clear();
         w.set("last", std::uint32_t{1});
         Bytes file = w.head();
         file.pop_back();
         return file;
       },
       "truncated_metadata", "last"},
      {58, "no_data", [] { return cut(valid_model().head().size())(); }, "truncated_data",
       "token_embd.weight"},
      {59, "one_byte_short", shorter(1), "truncated_data", kLast},
      {60, "shape_above_data", shape({32, 4096}, 1), "tensor_overlap", kNext},
  };
}

}  // namespace

void add_tiny_keys(GgufWriter& w, std::uint64_t n) {
  for (std::uint64_t i = 0; i < n; ++i) w.pairs.push_back({std::to_string(i), 0, Bytes(1)});
}

std::function<Bytes()> edited(std::function<void(GgufWriter&)> edit) {
  return [edit = std::move(edit)] {
    GgufWriter w = valid_model();
    edit(w);
    return w.bytes();
  };
}

std::vector<HostileCase> layout_cases() {
  std::vector<HostileCase> all;
  cut_header(all);
  for (const auto& part : {header_cases(), pair_cases(), info_cases(), data_cases()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

}  // namespace qwen::testing
