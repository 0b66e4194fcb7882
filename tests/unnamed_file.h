// A file for tests that change it while it is in use.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "tests/fixtures/gguf_writer.h"

namespace qwen::testing {

// A file in memory: it has a path as long as it is open.
class UnnamedFile {
 public:
  explicit UnnamedFile(const fixtures::Bytes& bytes) : file_(memfd_create("qwen", MFD_CLOEXEC)) {
    EXPECT_EQ(write(file_, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  ~UnnamedFile() { close(file_); }
  UnnamedFile(const UnnamedFile&) = delete;
  UnnamedFile& operator=(const UnnamedFile&) = delete;

  int descriptor() const { return file_; }
  std::string path() const { return "/proc/self/fd/" + std::to_string(file_); }
  void cut(std::size_t bytes) const { EXPECT_EQ(ftruncate(file_, static_cast<off_t>(bytes)), 0); }
  // As `touch` does: another modification time, the same bytes.
  void touch() const {
    struct stat now {};
    EXPECT_EQ(fstat(file_, &now), 0);
    const timespec times[2] = {now.st_atim, {now.st_mtim.tv_sec + 1, now.st_mtim.tv_nsec}};
    EXPECT_EQ(futimens(file_, times), 0);
  }

 private:
  int file_;
};

}  // namespace qwen::testing
