// Gguf: a parsed and completely validated GGUF file (versions 2 and 3, little-endian).
//
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Parsing allocates only the two
// directories (metadata pairs, tensors); everything else is a view into the Source. After parse()
// no offset, length or shape in the object can point outside the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/tensor.h"
#include "loader/gguf_value.h"
#include "loader/name_index.h"
#include "loader/source.h"

namespace qwen {

// Above what any real file holds, low enough that a hostile one costs neither time nor memory.
namespace gguf_limits {
inline constexpr std::uint64_t kKeys = 1 << 20;
inline constexpr std::uint64_t kTensors = 65'536;
inline constexpr std::uint64_t kKeyBytes = 64 << 10;
inline constexpr std::uint64_t kTensorNameBytes = 63;
inline constexpr std::uint64_t kStringBytes = 16 << 20;
inline constexpr std::uint64_t kArrayBytes = 64 << 20;
inline constexpr std::uint64_t kArrayStrings = 4 << 20;
inline constexpr std::uint64_t kMetadataBytes = 256 << 20;
inline constexpr std::uint32_t kMinAlignment =
    8;  // the format's rule; also what block structs need
inline constexpr std::uint32_t kMaxAlignment = 16 << 20;
}  // namespace gguf_limits

struct MetadataEntry {
  std::string_view key;
  GgufValue value;
  std::uint64_t offset;  // of the pair in the file, bytes
};

struct TensorInfo {
  std::string_view name;
  Tensor tensor;  // shape, type and data; the data is read-only although Tensor cannot say so
  std::uint64_t offset;  // bytes from the start of the data section
  std::uint64_t bytes;
};

class Gguf {
 public:
  // Reads and validates header, metadata and tensor directory in time n log n of their bytes.
  // Throws an Error (Exit::kModel) with file, code, and at least one of offset, key, tensor;
  // file_changed or read_error if the file was written or could not be read meanwhile. The Gguf
  // shares the Source; all views live as long as it does. Immutable afterwards: safe to read from
  // many threads.
  static Gguf parse(std::shared_ptr<const Source> source);

  std::uint32_t version() const { return version_; }
  std::uint32_t alignment() const { return alignment_; }
  std::uint64_t data_offset() const { return data_offset_; }  // bytes from the start of the file
  std::uint64_t file_bytes() const { return source_->bytes().size(); }
  const std::shared_ptr<const Source>& source() const { return source_; }
  // Both in the order of the file.
  std::span<const MetadataEntry> metadata() const { return metadata_; }
  std::span<const TensorInfo> tensors() const { return tensors_; }

  // Null if there is none.
  const MetadataEntry* find(std::string_view key) const;
  const TensorInfo* find_tensor(std::string_view name) const;

  // The value of a key whose type must be T, one of GgufValue's alternatives. Absent: nullopt.
  // Another type: an Error (wrong_type) that names both.
  template <class T>
  std::optional<T> find_as(std::string_view key) const {
    const MetadataEntry* entry = find(key);
    if (entry == nullptr) return std::nullopt;
    if (const T* value = std::get_if<T>(&entry->value)) return *value;
    throw wrong_type(*entry, to_string(kValueTypeOf<T>));
  }

  // The same for an array of T (of std::string_view: strings).
  template <class T>
  std::optional<GgufArray> find_array(std::string_view key) const {
    const auto array = find_as<GgufArray>(key);
    if (array && array->type != kValueTypeOf<T>) {
      throw refusal(key, "wrong_type",
                    "expected array of " + std::string(to_string(kValueTypeOf<T>)) +
                        ", got array of " + std::string(to_string(array->type)));
    }
    return array;
  }

  // The Error of an entry whose type is not `expected`.
  Error wrong_type(const MetadataEntry& entry, std::string_view expected) const;
  // An Error about an entry's value; `message` follows the key. One that is found no more, in a
  // file that is being written to, has no offset.
  Error refusal(std::string_view key, std::string code, const std::string& message,
                std::string hint = {}) const;
  Error refusal(const MetadataEntry& entry, std::string code, const std::string& message,
                std::string hint = {}) const;

 private:
  Gguf() = default;
  void read();
  void read_header(class Reader& reader);
  void read_metadata(class Reader& reader);
  void check_keys();
  void read_alignment();
  void check_not_split() const;

  std::shared_ptr<const Source> source_;
  std::uint32_t version_ = 0;
  std::uint32_t alignment_ = 32;
  std::uint64_t n_tensors_ = 0;
  std::uint64_t n_keys_ = 0;
  std::uint64_t data_offset_ = 0;
  std::vector<MetadataEntry> metadata_;
  std::vector<TensorInfo> tensors_;
  NameIndex by_key_;
  NameIndex by_name_;
};

}  // namespace qwen
