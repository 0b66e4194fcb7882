#include "core/crosscheck/npy.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string_view>
#include <utility>

#include "core/error.h"

namespace qwen::crosscheck {
namespace {

// Magic, version 1.0, and two bytes for the length of the header that follows.
constexpr std::string_view kMagic("\x93NUMPY\x01\x00", 8);
constexpr std::size_t kPrefix = kMagic.size() + 2;
constexpr std::size_t kAlignment = 64;  // of the data
constexpr std::size_t kMaxRank = 8;

struct TypeInfo {
  NpyType type;
  std::string_view descr;
  std::uint64_t bytes;
};
constexpr std::array<TypeInfo, 6> kTypes = {{{NpyType::kF4, "<f4", 4},
                                             {NpyType::kF8, "<f8", 8},
                                             {NpyType::kF2, "<f2", 2},
                                             {NpyType::kI4, "<i4", 4},
                                             {NpyType::kI1, "|i1", 1},
                                             {NpyType::kU1, "|u1", 1}}};

const TypeInfo& type_info(NpyType type) { return kTypes[static_cast<std::size_t>(type)]; }

[[noreturn]] void damaged(const std::string& path, const std::string& what) {
  throw Error({.exit = Exit::kModel,
               .code = "damaged_npy",
               .message = "file " + what,
               .hint = "it is damaged, or not as numpy.save() writes it: C order, little-endian, "
                       "one dimension or more",
               .file = path});
}

// Reads the header, a Python dictionary in the one form in which it is written.
class Header {
 public:
  Header(std::string_view text, const std::string& path) : rest_(text), path_(path) {}

  NpyArray parse() {
    NpyArray array;
    expect("{'descr': '");
    array.type = type();
    expect("', 'fortran_order': False, 'shape': (");
    while (!skip(")")) {
      if (array.shape.size() == kMaxRank) refuse("at most 8 dimensions");
      array.shape.push_back(number());
      if (!skip(", ") && !skip(",") && !rest_.starts_with(")")) refuse("',' or ')'");
    }
    if (array.shape.empty()) refuse("a dimension");
    skip(",");
    skip(" ");
    expect("}");
    if (rest_.find_first_not_of(" \n") != std::string_view::npos) refuse("nothing more");
    return array;
  }

 private:
  bool skip(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }
  void expect(std::string_view text) {
    if (!skip(text)) refuse('"' + std::string(text) + '"');
  }
  NpyType type() {
    const auto* const found = std::find_if(kTypes.begin(), kTypes.end(),
                                           [&](const TypeInfo& t) { return skip(t.descr); });
    if (found == kTypes.end()) refuse("one of the types <f4, <f8, <f2, <i4, |i1, |u1");
    return found->type;
  }
  std::int64_t number() {
    constexpr std::size_t kMaxDigits = 18;  // fits 64 bits
    const std::size_t digits = std::min(rest_.find_first_not_of("0123456789"), rest_.size());
    if (digits == 0 || digits > kMaxDigits) refuse("a dimension of at most 18 digits");
    const std::int64_t n = std::stoll(std::string(rest_.substr(0, digits)));
    rest_.remove_prefix(digits);
    return n;
  }
  [[noreturn]] void refuse(const std::string& expected) const {
    constexpr std::size_t kShown = 24;
    std::string got(rest_.substr(0, kShown));
    std::replace_if(
        got.begin(), got.end(), [](char c) { return c < ' ' || c > '~'; }, '.');
    damaged(path_, "has a header with \"" + got + "\" where " + expected + " is expected");
  }

  std::string_view rest_;
  const std::string& path_;
};

// Saturates.
std::uint64_t data_bytes(const NpyArray& array) {
  std::uint64_t n = type_info(array.type).bytes;
  for (const std::int64_t dim : array.shape) {
    if (__builtin_mul_overflow(n, static_cast<std::uint64_t>(dim), &n)) {
      return std::numeric_limits<std::uint64_t>::max();
    }
  }
  return n;
}

std::string read_exactly(std::ifstream& in, std::size_t n, const std::string& path) {
  std::string bytes(n, '\0');
  in.read(bytes.data(), static_cast<std::streamsize>(n));
  if (!in) damaged(path, "cannot be read");
  return bytes;
}

}  // namespace

std::int64_t NpyArray::size() const {
  std::int64_t n = 1;
  for (const std::int64_t dim : shape) n *= dim;
  return n;
}

NpyArray to_npy(const Tensor& host) {
  NpyArray array{.shape = {host.dims().begin(), host.dims().end()}};
  switch (host.dtype) {
    case DType::kF32:
      array.type = NpyType::kF4;
      break;
    case DType::kF16:
      array.type = NpyType::kF2;
      break;
    case DType::kI32:
      array.type = NpyType::kI4;
      break;
    case DType::kI8:
      array.type = NpyType::kI1;
      break;
    default:
      array.type = NpyType::kU1;
      array.shape.back() = static_cast<std::int64_t>(host.row_bytes());
  }
  array.bytes.assign(host.data, host.data + host.bytes());
  return array;
}

NpyArray to_npy(std::span<const double> values) {
  const auto bytes = std::as_bytes(values);
  return {.type = NpyType::kF8,
          .shape = {static_cast<std::int64_t>(values.size())},
          .bytes = {bytes.begin(), bytes.end()}};
}

void write_npy(const std::string& path, const NpyArray& array) {
  std::string header = "{'descr': '" + std::string(type_info(array.type).descr) +
                       "', 'fortran_order': False, 'shape': " + shape_string(array.shape) + ", }";
  header.resize((kPrefix + header.size()) / kAlignment * kAlignment + kAlignment - kPrefix, ' ');
  header.back() = '\n';
  const char length[] = {static_cast<char>(header.size() % 256),
                         static_cast<char>(header.size() / 256)};
  std::ofstream out(path, std::ios::binary);
  out << kMagic;
  out.write(length, sizeof length);
  out << header;
  out.write(reinterpret_cast<const char*>(array.bytes.data()),
            static_cast<std::streamsize>(array.bytes.size()));
  out.close();
  if (!out) {
    throw Error(
        {.code = "cannot_write", .message = "cannot write " + path, .hint = {}, .file = path});
  }
}

NpyArray read_npy(const std::string& path, std::uint64_t max_bytes) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    damaged(path, "is not there, or is no regular file");
  }
  const std::uint64_t file_bytes = std::filesystem::file_size(path, error);
  if (error) damaged(path, "cannot be read");
  if (file_bytes > max_bytes) {
    damaged(path, "has " + std::to_string(file_bytes) + " bytes, " + std::to_string(max_bytes) +
                      " are the most");
  }
  std::ifstream in(path, std::ios::binary);
  if (file_bytes < kPrefix) damaged(path, "is too short for a .npy file");
  const std::string prefix = read_exactly(in, kPrefix, path);
  if (!prefix.starts_with(kMagic)) damaged(path, "is no .npy file of format 1.0");
  const std::size_t header_bytes = static_cast<unsigned char>(prefix[kMagic.size()]) +
                                   256u * static_cast<unsigned char>(prefix[kMagic.size() + 1]);
  if (header_bytes > file_bytes - kPrefix) damaged(path, "ends within its header");
  NpyArray array = Header(read_exactly(in, header_bytes, path), path).parse();
  const std::uint64_t there = file_bytes - kPrefix - header_bytes;
  if (data_bytes(array) != there) {
    damaged(path, "has " + std::to_string(there) + " bytes of data, its shape " +
                      shape_string(array.shape) + " of type " +
                      std::string(type_info(array.type).descr) + " needs " +
                      (data_bytes(array) == std::numeric_limits<std::uint64_t>::max()
                           ? "more than 64 bits can count"
                           : std::to_string(data_bytes(array))));
  }
  array.bytes.resize(there);
  in.read(reinterpret_cast<char*>(array.bytes.data()), static_cast<std::streamsize>(there));
  if (!in) damaged(path, "cannot be read");
  return array;
}

}  // namespace qwen::crosscheck
