#include "loader/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <utility>

#include "core/checked.h"
#include "loader/reader.h"
#include "loader/tensor_directory.h"
#include "loader/text.h"

namespace qwen {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr std::uint64_t kHeaderBytes = 24;
constexpr std::uint64_t kMinPairBytes = 13;  // empty key, type, one-byte value
constexpr std::uint64_t kMinInfoBytes = 32;  // empty name, one dimension
constexpr std::uint64_t kReservedKeys = 4096;

// Refuses a count from the header that the rest of the file cannot hold, before anything is
// reserved.
void check_count(const Reader& reader, std::string_view what, std::uint64_t count,
                 std::uint64_t min_bytes, std::uint64_t limit, std::uint64_t offset) {
  const std::string code = "too_many_" + std::string(what);
  if (!(Checked(count) * min_bytes).fits(reader.left())) {
    throw reader.refusal(code,
                         "header: " + std::to_string(count) + " " + std::string(what) +
                             " need at least " + std::to_string(min_bytes) + " bytes each, only " +
                             human_bytes(reader.left()) + " are left",
                         offset);
  }
  if (count > limit) {
    throw reader.refusal(code,
                         "header: " + std::to_string(count) + " " + std::string(what) +
                             ", at most " + std::to_string(limit) + " are allowed",
                         offset);
  }
}

ValueType read_value_type(Reader& reader, std::string_view what, std::string code) {
  const std::uint64_t offset = reader.pos();
  const auto id = reader.number<std::uint32_t>(what);
  if (id >= kValueTypes) {
    throw reader.refusal(std::move(code),
                         std::string(what) + " " + std::to_string(id) + " is unknown (0 to 12 are)",
                         offset);
  }
  return static_cast<ValueType>(id);
}

bool read_bool(Reader& reader) {
  const std::uint64_t offset = reader.pos();
  const auto byte = reader.number<std::uint8_t>("bool");
  if (byte > 1) {
    throw reader.refusal("bad_bool", "bool must be 0 or 1, got " + std::to_string(byte), offset);
  }
  return byte == 1;
}

// Walks the strings of an array, so that later readers need no checks.
void skip_strings(Reader& reader, std::uint64_t count, std::uint64_t start) {
  for (std::uint64_t i = 0; i < count; ++i) {
    reader.set_element(i);
    reader.string("string", gguf_limits::kStringBytes);
    if (reader.pos() - start > gguf_limits::kArrayBytes) {
      throw reader.refusal("array_too_large",
                           "array of " + std::to_string(count) + " strings passes the limit of " +
                               human_bytes(gguf_limits::kArrayBytes),
                           start);
    }
  }
}

GgufArray read_array(Reader& reader, std::span<const std::byte> file) {
  GgufArray array;
  const std::uint64_t type_offset = reader.pos();
  array.type = read_value_type(reader, "array element type", "unknown_element_type");
  if (array.type == ValueType::kArray) {
    throw reader.refusal("nested_array", "arrays of arrays are not supported", type_offset);
  }
  array.count = reader.number<std::uint64_t>("array count");
  const std::uint64_t start = reader.pos();
  const bool strings = array.type == ValueType::kString;
  const std::string what =
      "array of " + std::to_string(array.count) + " " + std::string(to_string(array.type));

  // A string takes at least the eight bytes of its length.
  const Checked size = Checked(array.count) * (strings ? 8 : size_of(array.type));
  if (!size.fits(reader.left())) {
    throw reader.refusal(
        "array_past_end",
        what + " values does not fit: the file has " + human_bytes(reader.left()) + " left", start);
  }
  if (!size.fits(gguf_limits::kArrayBytes) ||
      (strings && array.count > gguf_limits::kArrayStrings)) {
    throw reader.refusal("array_too_large",
                         what + " values passes the limit of " +
                             human_bytes(gguf_limits::kArrayBytes) + " or " +
                             std::to_string(gguf_limits::kArrayStrings) + " strings",
                         start);
  }
  if (strings) {
    skip_strings(reader, array.count, start);
  } else if (array.type == ValueType::kBool) {
    for (std::uint64_t i = 0; i < array.count; ++i) {
      reader.set_element(i);
      read_bool(reader);
    }
  } else {
    reader.take(size.value(), what);
  }
  reader.set_element({});
  array.bytes = file.subspan(start, reader.pos() - start);
  return array;
}

GgufValue read_value(Reader& reader, std::span<const std::byte> file) {
  switch (read_value_type(reader, "value type", "unknown_value_type")) {
    case ValueType::kU8:
      return reader.number<std::uint8_t>("u8");
    case ValueType::kI8:
      return reader.number<std::int8_t>("i8");
    case ValueType::kU16:
      return reader.number<std::uint16_t>("u16");
    case ValueType::kI16:
      return reader.number<std::int16_t>("i16");
    case ValueType::kU32:
      return reader.number<std::uint32_t>("u32");
    case ValueType::kI32:
      return reader.number<std::int32_t>("i32");
    case ValueType::kF32:
      return reader.number<float>("f32");
    case ValueType::kBool:
      return read_bool(reader);
    case ValueType::kString:
      return reader.string("string", gguf_limits::kStringBytes);
    case ValueType::kArray:
      return read_array(reader, file);
    case ValueType::kU64:
      return reader.number<std::uint64_t>("u64");
    case ValueType::kI64:
      return reader.number<std::int64_t>("i64");
    case ValueType::kF64:
      return reader.number<double>("f64");
  }
  assert(false);  // read_value_type lets only these through
  return {};
}

// The value of any integer type, or nullopt.
std::optional<std::int64_t> as_integer(const GgufValue& value) {
  return std::visit(
      [](const auto& v) -> std::optional<std::int64_t> {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
          if (std::in_range<std::int64_t>(v)) return static_cast<std::int64_t>(v);
        }
        return std::nullopt;
      },
      value);
}

}  // namespace

Gguf Gguf::parse(std::shared_ptr<const Source> source) {
  Gguf gguf;
  gguf.source_ = std::move(source);
  read_unchanged(*gguf.source_, [&] { gguf.read(); });
  return gguf;
}

void Gguf::read() {
  Reader reader(source_->bytes(), source_->name());
  read_header(reader);
  read_metadata(reader);
  check_keys();
  read_alignment();
  check_not_split();
  TensorDirectory directory = read_tensor_directory(reader, *source_, n_tensors_, alignment_);
  tensors_ = std::move(directory.tensors);
  by_name_ = std::move(directory.by_name);
  data_offset_ = directory.data_offset;
}

void Gguf::read_header(Reader& reader) {
  reader.set_place({.section = "header"});
  const auto bytes = source_->bytes();
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()),
                               std::min<std::size_t>(bytes.size(), kMagic.size()));
  if (!kMagic.starts_with(start)) {
    constexpr std::array<std::string_view, 6> kLegacy = {"ggml", "lmgg", "fmgg",
                                                         "tjgg", "algg", "GGJT"};
    const bool legacy = std::find(kLegacy.begin(), kLegacy.end(), start) != kLegacy.end();
    throw reader.refusal(
        legacy ? "legacy_format" : "bad_magic",
        "file is not a GGUF file: it starts with '" + printable(start) + "', expected 'GGUF'", 0,
        legacy ? "convert the original model to GGUF: this is an older format"
               : "give the path of a .gguf file");
  }
  if (bytes.size() < kHeaderBytes) {
    throw reader.refusal(
        "truncated_header",
        "file is truncated: a GGUF header is 24 bytes, got " + std::to_string(bytes.size()),
        bytes.size(), "download it again");
  }
  reader.take(kMagic.size(), "magic");
  version_ = reader.number<std::uint32_t>("version");
  if (version_ != 0 && (version_ & 0xffff) == 0) {
    throw reader.refusal("big_endian",
                         "file is a big-endian GGUF file (version field " +
                             std::to_string(version_) + "), expected little-endian",
                         4, "convert it to little-endian");
  }
  if (version_ != 2 && version_ != 3) {
    throw reader.refusal(
        "unsupported_version",
        "GGUF version " + std::to_string(version_) + " is not supported (2 and 3 are)", 4,
        version_ < 2 ? "convert the model again" : "a newer program is needed");
  }
  n_tensors_ = reader.number<std::uint64_t>("tensor count");
  n_keys_ = reader.number<std::uint64_t>("metadata count");
  check_count(reader, "tensors", n_tensors_, kMinInfoBytes, gguf_limits::kTensors, 8);
  check_count(reader, "keys", n_keys_, kMinPairBytes, gguf_limits::kKeys, 16);
}

void Gguf::read_metadata(Reader& reader) {
  metadata_.reserve(std::min(n_keys_, kReservedKeys));  // the count alone must not cost memory
  for (std::uint64_t i = 0; i < n_keys_; ++i) {
    reader.set_place({.section = "metadata", .item = "metadata key", .number = i});
    const std::uint64_t start = reader.pos();
    const auto key = reader.string("key", gguf_limits::kKeyBytes, "key_too_long");
    reader.set_key(key);
    if (key.empty()) throw reader.refusal("empty_key", "the key is empty", start);
    if (!is_plain_text(key)) {
      throw reader.refusal("bad_key", "the key has control characters or is not UTF-8", start);
    }
    metadata_.push_back({key, read_value(reader, source_->bytes()), start});
    if (reader.pos() > gguf_limits::kMetadataBytes) {
      throw reader.refusal(
          "metadata_too_large",
          "metadata passes the limit of " + human_bytes(gguf_limits::kMetadataBytes), start);
    }
  }
}

void Gguf::check_keys() {
  by_key_ = NameIndex(metadata(), [](const MetadataEntry& entry) { return entry.key; });
  const auto duplicate = by_key_.find_duplicate();
  if (!duplicate) return;
  const MetadataEntry& entry = metadata_[duplicate->second];
  throw refusal(entry, "duplicate_key",
                "occurs twice, at offsets " + std::to_string(metadata_[duplicate->first].offset) +
                    " and " + std::to_string(entry.offset));
}

void Gguf::read_alignment() {
  const auto alignment = find_as<std::uint32_t>("general.alignment");
  if (!alignment) return;
  if (!std::has_single_bit(*alignment) || *alignment < gguf_limits::kMinAlignment ||
      *alignment > gguf_limits::kMaxAlignment) {
    throw refusal("general.alignment", "bad_alignment",
                  "expected a power of two from " + std::to_string(gguf_limits::kMinAlignment) +
                      " to " + std::to_string(gguf_limits::kMaxAlignment) + ", got " +
                      std::to_string(*alignment));
  }
  alignment_ = *alignment;
}

void Gguf::check_not_split() const {
  const MetadataEntry* count = find("split.count");
  const MetadataEntry* number = find("split.no");
  for (const MetadataEntry* entry : {count, number}) {
    if (entry != nullptr && !as_integer(entry->value)) throw wrong_type(*entry, "an integer");
  }
  const std::int64_t n = count != nullptr ? *as_integer(count->value) : 1;
  const std::int64_t no = number != nullptr ? *as_integer(number->value) : 0;
  if (n < 1 || n > 65'534) {
    throw refusal(*count, "bad_split", "expected 1 to 65534 files, got " + std::to_string(n));
  }
  if (no < 0 || no >= n) {
    throw refusal(
        *number, "bad_split",
        "expected less than split.count " + std::to_string(n) + ", got " + std::to_string(no));
  }
  if (n > 1) {
    throw refusal(*count, "split_file",
                  "model split into " + std::to_string(n) +
                      " files is not supported, this is file " + std::to_string(no + 1),
                  "join the files: llama-gguf-split --merge");
  }
}

const MetadataEntry* Gguf::find(std::string_view key) const {
  const auto index = by_key_.find(key);
  return index ? &metadata_[*index] : nullptr;
}

const TensorInfo* Gguf::find_tensor(std::string_view name) const {
  const auto index = by_name_.find(name);
  return index ? &tensors_[*index] : nullptr;
}

Error Gguf::wrong_type(const MetadataEntry& entry, std::string_view expected) const {
  std::string got(to_string(type_of(entry.value)));
  if (const auto* array = std::get_if<GgufArray>(&entry.value)) {
    got += " of " + std::string(to_string(array->type));
  }
  return refusal(entry, "wrong_type", "expected " + std::string(expected) + ", got " + got);
}

Error Gguf::refusal(std::string_view key, std::string code, const std::string& message,
                    std::string hint) const {
  const MetadataEntry* entry = find(key);
  return Error({.exit = Exit::kModel,
                .code = std::move(code),
                .message = "metadata key '" + printable(key) + "': " + message,
                .hint = std::move(hint),
                .file = source_->name(),
                .offset = entry == nullptr ? std::nullopt : std::optional(entry->offset),
                .key = printable(key)});
}

Error Gguf::refusal(const MetadataEntry& entry, std::string code, const std::string& message,
                    std::string hint) const {
  return Error({.exit = Exit::kModel,
                .code = std::move(code),
                .message = "metadata key '" + printable(entry.key) + "': " + message,
                .hint = std::move(hint),
                .file = source_->name(),
                .offset = entry.offset,
                .key = printable(entry.key)});
}

}  // namespace qwen
