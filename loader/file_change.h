// What became of a file that was mapped, from what the system says of it. Internal to the loader.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <string>

namespace qwen {

struct FileChange {
  std::string
      code;  // "file_changed", or "read_error" where the file is the same but its disk failed
  std::string message;
  std::string hint;
};

// Nothing if what was read is what the file held all the while. `lost`: the offset of a page that
// could not be read. A file that was replaced in place looks like one whose modification time was
// set (touch): both are changes. Its name, owner and permissions may change.
std::optional<FileChange> find_change(const struct stat& opened, const struct stat& now,
                                      std::optional<std::uint64_t> lost);

// The system does not say: `error` is errno's value.
FileChange unknown_change(int error);

}  // namespace qwen
