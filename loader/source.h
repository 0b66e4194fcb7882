// Source: the read-only bytes of a model file and whoever owns them.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

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

  // Throws an Error (file_changed) if the file on disk was written, cut or extended since it was
  // opened. Pages that a cut file no longer has read as zeros, so whoever has read a mapped file
  // asks before the result is used. No effect on memory.
  virtual void check_unchanged() const {}

 protected:
  Source(std::span<const std::byte> bytes, std::string name)
      : bytes_(bytes), name_(std::move(name)) {}

 private:
  std::span<const std::byte> bytes_;
  std::string name_;
};

// Maps a regular file. Throws an Error (Exit::kModel: file_not_found, dangling_link,
// not_a_regular_file, cannot_open, empty_file) before anything is read; never blocks on a pipe.
std::shared_ptr<const Source> open_file(const std::string& path);

// Takes the bytes over.
std::shared_ptr<const Source> from_memory(std::vector<std::byte> bytes, std::string name);

// A view of bytes that outlive the Source, such as data linked into the program. They must be
// aligned to 16 bytes.
std::shared_ptr<const Source> from_memory(std::span<const std::byte> bytes, std::string name);

}  // namespace qwen
