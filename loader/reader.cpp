#include "loader/reader.h"

#include "loader/text.h"

namespace qwen {

std::span<const std::byte> Reader::take(std::uint64_t size, std::string_view what) {
  if (size > left()) {  // by subtraction: pos + size could wrap
    throw refusal("truncated_" + std::string(place_.section),
                  std::string(what) + " needs " + human_bytes(size) + " at offset " +
                      std::to_string(pos_) + ", the file has " + human_bytes(left()) + " left",
                  pos_, "the file is truncated; download it again");
  }
  const auto taken = bytes_.subspan(pos_, size);
  pos_ += size;
  return taken;
}

std::string_view Reader::string(std::string_view what, std::uint64_t max_bytes,
                                std::string_view too_large) {
  const std::uint64_t start = pos_;
  const auto length = number<std::uint64_t>(what);
  if (length > left()) {
    throw refusal("string_past_end",
                  std::string(what) + " of " + std::to_string(length) + " bytes at offset " +
                      std::to_string(start) + ", the file has " + human_bytes(left()) + " left",
                  start);
  }
  const auto bytes = take(length, what);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (length > max_bytes) {
    throw refusal(std::string(too_large),
                  std::string(what) + " '" + printable(text) + "' of " + std::to_string(length) +
                      " bytes, at most " + std::to_string(max_bytes) + " are allowed",
                  start);
  }
  return text;
}

Error Reader::refusal(std::string code, const std::string& message, std::uint64_t offset,
                      std::string hint) const {
  std::string subject;
  if (!place_.item.empty())
    subject = std::string(place_.item) + " " + std::to_string(place_.number);
  if (!place_.key.empty()) subject = "metadata key '" + printable(place_.key) + "'";
  if (!place_.tensor.empty()) subject = printable(place_.tensor);
  if (place_.element) subject += ", element " + std::to_string(*place_.element);
  return Error({.exit = Exit::kModel,
                .code = std::move(code),
                .message = subject.empty() ? message : subject + ": " + message,
                .hint = std::move(hint),
                .file = file_,
                .offset = offset,
                .key = printable(place_.key),
                .tensor = printable(place_.tensor)});
}

}  // namespace qwen
