#include "loader/file_change.h"

#include <cstring>

namespace qwen {
namespace {

constexpr const char* kDiskHint = "check the disk or the network, or copy the file to another disk";

bool same(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

FileChange changed(const std::string& how) {
  return {"file_changed", "file was changed while in use: " + how,
          "wait until the download or conversion has ended"};
}

}  // namespace

std::optional<FileChange> find_change(const struct stat& opened, const struct stat& now,
                                      std::optional<std::uint64_t> lost) {
  if (now.st_size != opened.st_size) {
    return changed("it had " + std::to_string(opened.st_size) + " bytes, now " +
                   std::to_string(now.st_size));
  }
  if (!same(now.st_mtim, opened.st_mtim)) {
    return changed("its modification time is another (it has " + std::to_string(now.st_size) +
                   " bytes, as before)");
  }
  if (!lost) return std::nullopt;
  const std::string place = "the page at offset " + std::to_string(*lost);
  // Cutting a file and restoring it leaves this time, which nobody can set; but so does renaming
  // it.
  if (!same(now.st_ctim, opened.st_ctim)) {
    FileChange either = changed(place + " was missing for a while, or its disk failed");
    either.hint += std::string("; else ") + kDiskHint;
    return either;
  }
  return FileChange{"read_error", "file cannot be read: the system reported an error for " + place,
                    kDiskHint};
}

FileChange unknown_change(int error) {
  return {
      "read_error",
      std::string("file cannot be asked whether it changed while in use: ") + std::strerror(error),
      kDiskHint};
}

}  // namespace qwen
