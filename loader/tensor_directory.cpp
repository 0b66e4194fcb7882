#include "loader/tensor_directory.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <string>

#include "core/checked.h"
#include "core/dtype.h"
#include "loader/text.h"

namespace qwen {
namespace {

constexpr std::uint64_t kMaxElements = INT64_MAX;

// Names of ids that exist or existed in the format and that the project does not decode.
std::string type_name(std::uint32_t id) {
  struct Name {
    std::uint32_t id;
    std::string_view name;
  };
  constexpr std::array<Name, 25> kOthers = {{
      {4, "Q4_2, removed"},
      {5, "Q4_3, removed"},
      {9, "Q8_1"},
      {15, "Q8_K"},
      {16, "IQ2_XXS"},
      {17, "IQ2_XS"},
      {18, "IQ3_XXS"},
      {19, "IQ1_S"},
      {21, "IQ3_S"},
      {22, "IQ2_S"},
      {24, "I8"},
      {25, "I16"},
      {26, "I32"},
      {27, "I64"},
      {28, "F64"},
      {29, "IQ1_M"},
      {31, "Q4_0_4_4, removed"},
      {32, "Q4_0_4_8, removed"},
      {33, "Q4_0_8_8, removed"},
      {34, "TQ1_0"},
      {35, "TQ2_0"},
      {36, "IQ4_NL_4_4, removed"},
      {37, "IQ4_NL_4_8, removed"},
      {38, "IQ4_NL_8_8, removed"},
      {39, "MXFP4"},
  }};
  for (const Name& other : kOthers) {
    if (other.id == id) return std::to_string(id) + " (" + std::string(other.name) + ")";
  }
  return std::to_string(static_cast<std::int32_t>(id));
}

// ne[0] first, as in the file: shapes that overflow have no Tensor to print.
std::string ne_string(const std::array<std::uint64_t, Tensor::kMaxRank>& ne, std::uint32_t rank) {
  std::string text = "[";
  for (std::uint32_t i = 0; i < rank; ++i) text += (i > 0 ? ", " : "") + std::to_string(ne[i]);
  return text + "]";
}

// A shape and type whose byte count is known to fit; the data pointer is set once the data section
// is.
TensorInfo read_info(Reader& reader, std::uint64_t index, std::uint32_t alignment) {
  reader.set_place({.section = "tensor_info", .item = "tensor", .number = index});
  const std::uint64_t start = reader.pos();
  TensorInfo info{};
  info.name = reader.string("tensor name", gguf_limits::kTensorNameBytes, "tensor_name_too_long");
  reader.set_tensor(info.name);
  if (info.name.empty()) throw reader.refusal("empty_tensor_name", "the name is empty", start);
  if (!is_plain_text(info.name)) {
    throw reader.refusal("bad_tensor_name", "the name has control characters or is not UTF-8",
                         start);
  }

  const std::uint64_t rank_offset = reader.pos();
  const auto rank = reader.number<std::uint32_t>("n_dims");
  if (rank < 1 || rank > Tensor::kMaxRank) {
    throw reader.refusal("bad_rank", "expected 1 to 4 dimensions, got " + std::to_string(rank),
                         rank_offset);
  }
  std::array<std::uint64_t, Tensor::kMaxRank> ne{};
  Checked elements(1);
  for (std::uint32_t i = 0; i < rank; ++i) {
    const std::uint64_t offset = reader.pos();
    ne[i] = reader.number<std::uint64_t>("dimension");
    if (ne[i] == 0 || ne[i] > kMaxElements) {
      throw reader.refusal(
          "bad_dimension",
          "dimension " + std::to_string(i) + " is " +
              (ne[i] == 0 ? "0" : std::to_string(static_cast<std::int64_t>(ne[i]))) +
              ", expected at least 1",
          offset);
    }
    elements = elements * ne[i];
  }
  if (!elements.fits(kMaxElements)) {
    throw reader.refusal("shape_too_large",
                         "shape " + ne_string(ne, rank) + " has more than 2^63 - 1 elements",
                         rank_offset);
  }

  const std::uint64_t type_offset = reader.pos();
  const auto type_id = reader.number<std::uint32_t>("tensor type");
  const DTypeInfo* type = find_dtype(type_id);
  if (type == nullptr || type->decode_block == nullptr) {
    throw reader.refusal("unsupported_type",
                         "tensor type " + type_name(type_id) + " is not supported", type_offset,
                         "convert the model to Q8_0, Q4_K_M or F16");
  }
  const auto block = static_cast<std::uint64_t>(type->block_size);
  if (ne[0] % block != 0) {
    throw reader.refusal("partial_block",
                         "rows of " + std::to_string(ne[0]) + " elements are no multiple of the " +
                             std::string(type->name) + " block of " + std::to_string(block),
                         rank_offset);
  }
  const Checked bytes =
      Checked(elements.value() / block) * static_cast<std::uint64_t>(type->block_bytes);
  if (!bytes.fits(kMaxElements)) {
    throw reader.refusal("shape_too_large",
                         "shape " + ne_string(ne, rank) + " has more than 2^63 - 1 bytes",
                         rank_offset);
  }
  info.bytes = bytes.value();

  const std::uint64_t offset_offset = reader.pos();
  info.offset = reader.number<std::uint64_t>("tensor offset");
  if (info.offset % alignment != 0) {
    throw reader.refusal("misaligned_tensor",
                         "data offset " + std::to_string(info.offset) +
                             " is no multiple of the alignment " + std::to_string(alignment),
                         offset_offset);
  }
  info.tensor.dtype = type->dtype;
  info.tensor.rank = static_cast<int>(rank);
  for (std::uint32_t i = 0; i < rank; ++i) {
    info.tensor.shape[i] = static_cast<std::int64_t>(ne[rank - 1 - i]);
  }
  return info;
}

std::vector<std::uint32_t> sorted_by_offset(const std::vector<TensorInfo>& tensors) {
  std::vector<std::uint32_t> order(tensors.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return std::pair(tensors[a].offset, a) < std::pair(tensors[b].offset, b);
  });
  return order;
}

// Refusals that know no reader position: the offset is the tensor's place in the file.
class Tiling {
 public:
  Tiling(const Source& source, std::uint64_t data_offset, std::uint32_t alignment)
      : source_(source), data_offset_(data_offset), alignment_(alignment) {}

  // Checks that the tensors lie one after the other with only padding between them, and that the
  // file ends where the last one does (its padding may be absent).
  void check(const std::vector<TensorInfo>& tensors) const {
    const std::uint64_t file_bytes = source_.bytes().size();
    check_range(tensors);
    const TensorInfo* before = nullptr;
    Checked cursor(0);  // where the next tensor must begin, from the start of the data section
    Checked end(data_offset_);
    for (const std::uint32_t index : sorted_by_offset(tensors)) {
      const TensorInfo& t = tensors[index];
      if (t.offset < cursor.value()) {
        throw refusal(t, "tensor_overlap",
                      "data at offset " + std::to_string(t.offset) + " overlaps " +
                          printable(before->name) + ", which ends at " +
                          std::to_string(before->offset + before->bytes));
      }
      if (t.offset > cursor.value()) {
        throw refusal(t, "tensor_gap",
                      "data at offset " + std::to_string(t.offset) + ", expected " +
                          std::to_string(cursor.value()) + " (right after the tensor before)");
      }
      end = Checked(data_offset_) + t.offset + t.bytes;  // in range: check_range
      cursor = (Checked(t.offset) + t.bytes).align_up(alignment_);
      before = &t;
    }
    check_end(tensors, end.value(), file_bytes);
  }

 private:
  bool past_end(const TensorInfo& t) const {
    return !(Checked(data_offset_) + t.offset + t.bytes).fits(source_.bytes().size());
  }

  // Sums must not wrap, and no tensor may lie where not even the complete file could have it. (One
  // past the end of this file may just be cut off: check_end.)
  void check_range(const std::vector<TensorInfo>& tensors) const {
    Checked total(0);
    for (const TensorInfo& t : tensors) {
      total = total + Checked(t.bytes).align_up(alignment_);
      const Checked end = (Checked(data_offset_) + t.offset + t.bytes).align_up(alignment_);
      if (!end.fits(INT64_MAX) || !(total + data_offset_).fits(INT64_MAX)) {
        throw out_of_range(t, "2^63");
      }
    }
    for (const TensorInfo& t : tensors) {
      if (past_end(t) && t.offset + t.bytes > total.value()) {
        throw out_of_range(t, std::to_string(total.value()) + ", the sum of all tensors");
      }
    }
  }

  Error out_of_range(const TensorInfo& t, const std::string& limit) const {
    return refusal(t, "tensor_out_of_range",
                   "data of " + std::to_string(t.bytes) + " bytes at offset " +
                       std::to_string(t.offset) + " ends past " + limit + "; the file has " +
                       human_bytes(source_.bytes().size()));
  }

  void check_end(const std::vector<TensorInfo>& tensors, std::uint64_t end,
                 std::uint64_t file_bytes) const {
    if (!tensors.empty() && end > file_bytes) {
      const auto first = std::find_if(tensors.begin(), tensors.end(),
                                      [&](const TensorInfo& t) { return past_end(t); });
      throw refusal(*first, "truncated_data",
                    "file is truncated: tensor data ends at " + size_text(file_bytes, end) +
                        ", the header needs " + size_text(end, file_bytes),
                    "download it again");
    }
    if (file_bytes > Checked(end).align_up(alignment_).value()) {
      throw Error({.exit = Exit::kModel,
                   .code = "trailing_data",
                   .message = "file has " + human_bytes(file_bytes - end) +
                              " after the last tensor, expected at most padding to " +
                              std::to_string(alignment_),
                   .hint = "the file is damaged; download or convert it again",
                   .file = source_.name(),
                   .offset = end});
    }
  }

  // Two sizes must not print alike: "1.54 GiB, needs 1.54 GiB" explains nothing.
  static std::string size_text(std::uint64_t bytes, std::uint64_t other) {
    return human_bytes(bytes) == human_bytes(other) ? std::to_string(bytes) + " bytes"
                                                    : human_bytes(bytes);
  }

  Error refusal(const TensorInfo& t, std::string code, const std::string& message,
                std::string hint = "the file is damaged; download or convert it again") const {
    const bool whole_file = message.starts_with("file is ");
    const Checked place = Checked(data_offset_) + t.offset;
    return Error({.exit = Exit::kModel,
                  .code = std::move(code),
                  .message = whole_file ? message : printable(t.name) + ": " + message,
                  .hint = std::move(hint),
                  .file = source_.name(),
                  .offset = place.overflowed() ? t.offset : place.value(),
                  .tensor = printable(t.name)});
  }

  const Source& source_;
  std::uint64_t data_offset_;
  std::uint32_t alignment_;
};

}  // namespace

TensorDirectory read_tensor_directory(Reader& reader, const Source& source, std::uint64_t n_tensors,
                                      std::uint32_t alignment) {
  TensorDirectory directory;
  directory.tensors.reserve(n_tensors);
  for (std::uint64_t i = 0; i < n_tensors; ++i) {
    directory.tensors.push_back(read_info(reader, i, alignment));
  }
  directory.by_name = NameIndex(std::span<const TensorInfo>(directory.tensors),
                                [](const TensorInfo& t) { return t.name; });
  if (const auto duplicate = directory.by_name.find_duplicate()) {
    reader.set_place(
        {.section = "tensor_info", .tensor = directory.tensors[duplicate->first].name});
    throw reader.refusal("duplicate_tensor",
                         "two tensors have this name, numbers " + std::to_string(duplicate->first) +
                             " and " + std::to_string(duplicate->second),
                         reader.pos());
  }

  // The padding may be absent where no data follows.
  const Checked data_offset = Checked(reader.pos()).align_up(alignment);
  directory.data_offset = data_offset.value();
  Tiling(source, directory.data_offset, alignment).check(directory.tensors);
  const auto bytes = source.bytes();
  for (TensorInfo& t : directory.tensors) {
    t.tensor.data = const_cast<std::byte*>(bytes.data()) + directory.data_offset + t.offset;
  }
  return directory;
}

}  // namespace qwen
