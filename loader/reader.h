// Reader: a cursor over the bytes of a file that cannot leave them. Internal to the loader.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/error.h"

namespace qwen {

static_assert(std::endian::native == std::endian::little, "GGUF numbers are read in host order");

class Reader {
 public:
  // What is being read, for messages. The views must outlive the reading of the item.
  struct Place {
    std::string_view section;    // "header", "metadata", "tensor_info": the end of error codes
    std::string_view item = {};  // "metadata key", "tensor", as long as its name is not known
    std::uint64_t number = 0;    // of the item
    std::string_view key = {};
    std::string_view tensor = {};
    std::optional<std::uint64_t> element = {};  // of an array
  };

  Reader(std::span<const std::byte> bytes, std::string file)
      : bytes_(bytes), file_(std::move(file)) {}

  std::uint64_t pos() const { return pos_; }
  std::uint64_t left() const { return bytes_.size() - pos_; }
  void set_place(const Place& place) { place_ = place; }
  // Once the name of the item is known: messages carry it.
  void set_key(std::string_view key) { place_.key = key; }
  void set_tensor(std::string_view tensor) { place_.tensor = tensor; }
  void set_element(std::optional<std::uint64_t> index) { place_.element = index; }

  // A number of `what`; throws truncated_<section> where the file ends before it does.
  template <class T>
  T number(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  // A u64 length and that many bytes. Throws string_past_end, or `too_large` above `max_bytes`.
  std::string_view string(std::string_view what, std::uint64_t max_bytes,
                          std::string_view too_large = "string_too_large");

  // The next `size` bytes; throws truncated_<section>.
  std::span<const std::byte> take(std::uint64_t size, std::string_view what);

  // An Error about the item at hand, at byte `offset`. `message` says what is wrong with it; the
  // item's name is put before it.
  Error refusal(std::string code, const std::string& message, std::uint64_t offset,
                std::string hint = "the file is damaged; download or convert it again") const;

 private:
  std::span<const std::byte> bytes_;
  std::string file_;
  std::uint64_t pos_ = 0;
  Place place_{};
};

}  // namespace qwen
