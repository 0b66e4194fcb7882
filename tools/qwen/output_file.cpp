#include "tools/qwen/output_file.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "tools/qwen/parser.h"

namespace qwen::cli {
namespace {

// Also under another name; false if one is not there.
bool same_file(const std::string& a, const std::string& b) {
  struct stat x {};
  struct stat y {};
  return stat(a.c_str(), &x) == 0 && stat(b.c_str(), &y) == 0 && x.st_dev == y.st_dev &&
         x.st_ino == y.st_ino;
}

}  // namespace

OutputFile::OutputFile(const std::string& option, const std::string& path,
                       const std::string& model_path)
    : name_(option + " " + path) {
  // Opening it would empty the file that the weights are mapped from.
  if (same_file(path, model_path)) usage_error(name_ + " is the model", "name another file");
  file_.reset(std::fopen(path.c_str(), "we"));
  if (file_ != nullptr) return;
  throw Error({.exit = Exit::kUsage,
               .code = "cannot_write",
               .message = name_ + ": " + std::strerror(errno),
               .hint = "name a file in a folder that exists and can be written to"});
}

void OutputFile::write(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), file_.get()) == text.size() &&
      std::fflush(file_.get()) == 0) {
    return;
  }
  throw Error({.code = "cannot_write", .message = name_ + ": " + std::strerror(errno)});
}

}  // namespace qwen::cli
