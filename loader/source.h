// Source: the read-only bytes of a model file and whoever owns them.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "core/error.h"

namespace qwen {

// Immutable and safe to share between threads. Views into bytes() are valid as long as the Source
// lives.
class Source {
 public:
  virtual ~Source() = default;
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  // Aligned to at least 16 bytes.
  std::span<const std::byte> bytes() const { return bytes_; }
  // The path as the user gave it, or the name given to from_memory.
  const std::string& name() const { return name_; }

  // Asks the system to start reading the whole range; returns at once. No effect on memory.
  virtual void prefetch() const {}

  // The system may take back the memory of a part of bytes(), and reads it again when it is
  // touched.
  virtual void release(std::span<const std::byte> /*part*/) const {}

  // Throws an Error if the file on disk was written, cut, extended or touched since it was opened
  // (file_changed), or its disk could not be read (read_error). Two ways of writing show in nothing
  // that the system says: a writer may put the modification time back, and one who has mapped the
  // file as shared may write to pages that were written before it was opened. Pages that cannot be
  // read are zeros instead, so whoever has read a mapped file asks before the result is used: best
  // through read_unchanged(). No effect on memory.
  virtual void check_unchanged() const {}

 protected:
  Source(std::span<const std::byte> bytes, std::string name)
      : bytes_(bytes), name_(std::move(name)) {}

 private:
  std::span<const std::byte> bytes_;
  std::string name_;
};

// What `read` makes of the source's bytes, if they were the file's all the while. Throws what
// check_unchanged() throws, also in place of an Error of `read`, which is then no wonder; another
// Error of `read` gets the file's name.
template <class F>
auto read_unchanged(const Source& source, const F& read) {
  try {
    if constexpr (std::is_void_v<decltype(read())>) {
      read();
      source.check_unchanged();
    } else {
      auto made = read();
      source.check_unchanged();
      return made;
    }
  } catch (Error& error) {
    source.check_unchanged();
    error.set_file(source.name());
    throw;
  }
}

// Maps a regular file. Throws an Error (Exit::kModel: file_not_found, dangling_link,
// not_a_regular_file, cannot_open, empty_file) before anything is read; never blocks on a pipe.
std::shared_ptr<const Source> open_file(const std::string& path);

// Takes the bytes over.
std::shared_ptr<const Source> from_memory(std::vector<std::byte> bytes, std::string name);

// A view of bytes that outlive the Source, such as data linked into the program. They must be
// aligned to 16 bytes.
std::shared_ptr<const Source> from_memory(std::span<const std::byte> bytes, std::string name);

}  // namespace qwen
