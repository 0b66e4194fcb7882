#include "loader/source.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "loader/file_change.h"
#include "loader/guarded_range.h"

namespace qwen {
namespace {

Error refusal(const std::string& path, std::string code, std::string message, std::string hint) {
  return Error({.exit = Exit::kModel,
                .code = std::move(code),
                .message = std::move(message),
                .hint = std::move(hint),
                .file = path,
                .offset = 0});
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int value() const { return fd_; }

 private:
  int fd_;
};

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a named pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "no regular file";
}

void check_regular(const std::string& path, const struct stat& status) {
  if (!S_ISREG(status.st_mode)) {
    throw refusal(path, "not_a_regular_file",
                  std::string("file is ") + kind_of(status.st_mode) + ", expected a regular file",
                  "give the path of a .gguf file");
  }
  if (status.st_size == 0) {
    throw refusal(path, "empty_file", "file is empty: a GGUF header is 24 bytes, got 0",
                  "download it again");
  }
}

class Mapping {
 public:
  explicit Mapping(std::span<const std::byte> bytes) : bytes_(bytes) {}
  Mapping(Mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping() {
    if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

class MappedFile : public Source {
 public:
  MappedFile(FileDescriptor file, const struct stat& opened, Mapping mapping,
             const std::string& path)
      : Source(mapping.bytes(), path),
        file_(std::move(file)),
        opened_(opened),
        mapping_(std::move(mapping)),
        guard_(bytes()) {}

  void prefetch() const override {
    // Advice only: where it is refused, pages arrive when they are touched.
    madvise(const_cast<std::byte*>(bytes().data()), bytes().size(), MADV_WILLNEED);
  }

  void release(std::span<const std::byte> part) const override {
    // Whole pages, so that no neighbour loses its own.
    const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto begin = (reinterpret_cast<std::uintptr_t>(part.data()) + page - 1) / page * page;
    const auto end = reinterpret_cast<std::uintptr_t>(part.data() + part.size()) / page * page;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }

  void check_unchanged() const override {
    struct stat now {};
    const bool known = fstat(file_.value(), &now) == 0;
    const auto change = known ? find_change(opened_, now, guard_.lost()) : unknown_change(errno);
    if (change) throw refusal(name(), change->code, change->message, change->hint);
  }

 private:
  FileDescriptor file_;
  struct stat opened_;
  Mapping mapping_;
  GuardedRange guard_;
};

class Memory : public Source {
 public:
  Memory(std::vector<std::byte> owned, std::string name)
      : Source(owned, std::move(name)), owned_(std::move(owned)) {}
  Memory(std::span<const std::byte> bytes, std::string name) : Source(bytes, std::move(name)) {}

 private:
  std::vector<std::byte> owned_;  // a moved vector keeps its buffer, so the base's view stays valid
};

}  // namespace

std::shared_ptr<const Source> open_file(const std::string& path) {
  // Asked before opening: opening a device can have effects. Asked again afterwards: the path may
  // lead elsewhere by then. O_NONBLOCK keeps a pipe that slipped in between from blocking us.
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    const int error = errno;
    struct stat link {};
    if (error == ENOENT && lstat(path.c_str(), &link) == 0) {
      throw refusal(path, "dangling_link", "file is a link to one that does not exist",
                    "download the model again, or give another path");
    }
    if (error == ENOENT || error == ENOTDIR) {
      throw refusal(path, "file_not_found", "no such file", "check the path");
    }
    throw refusal(path, "cannot_open", std::string("cannot be opened: ") + std::strerror(error),
                  "check the path and its permissions");
  }
  check_regular(path, status);

  FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (file.value() < 0 || fstat(file.value(), &status) != 0) {
    throw refusal(path, "cannot_open", std::string("cannot be opened: ") + std::strerror(errno),
                  "check the permissions of the file");
  }
  check_regular(path, status);

  const auto size = static_cast<std::size_t>(status.st_size);
  void* memory = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.value(), 0);
  if (memory == MAP_FAILED) {
    throw refusal(path, "cannot_open", std::string("cannot be mapped: ") + std::strerror(errno),
                  "copy the file to a local disk");
  }
  Mapping mapping({static_cast<const std::byte*>(memory), size});
  return std::make_shared<MappedFile>(std::move(file), status, std::move(mapping), path);
}

std::shared_ptr<const Source> from_memory(std::vector<std::byte> bytes, std::string name) {
  return std::make_shared<Memory>(std::move(bytes), std::move(name));
}

std::shared_ptr<const Source> from_memory(std::span<const std::byte> bytes, std::string name) {
  assert(reinterpret_cast<std::uintptr_t>(bytes.data()) % 16 == 0);
  return std::make_shared<Memory>(bytes, std::move(name));
}

}  // namespace qwen
