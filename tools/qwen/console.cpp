#include "tools/qwen/console.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace qwen::cli {
namespace {

constexpr const char* kRed = "\033[1;31m";
constexpr const char* kBold = "\033[1m";
constexpr const char* kDim = "\033[2m";
constexpr const char* kNormal = "\033[0m";
constexpr const char* kClearLine = "\r\033[K";

// "file is truncated" and "is a directory" speak of the file itself; all else is about its content.
std::string about_file(const ErrorInfo& info) {
  const std::string& message = info.message;
  if (info.file.empty()) return message;
  if (message.starts_with("file ")) return info.file + message.substr(4);
  if (message.starts_with("is ")) return info.file + " " + message;
  return info.file + ": " + message;
}

// File names and values of options may hold anything; a message stays one line and must not steer
// the terminal.
std::string one_line(const std::string& text) {
  std::string out = text;
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return out;
}

Json error_document(const ErrorInfo& info) {
  Json error;
  error["code"] = info.code.empty() ? "failed" : info.code;
  error["message"] = one_line(about_file(info));
  if (!info.hint.empty()) error["hint"] = info.hint;
  if (!info.file.empty()) error["file"] = info.file;
  if (info.offset) error["offset"] = *info.offset;
  if (!info.key.empty()) error["key"] = info.key;
  if (!info.tensor.empty()) error["tensor"] = info.tensor;
  return Json{{"error", error}};
}

}  // namespace

Console::Console() : terminal_(isatty(STDERR_FILENO) != 0) {
  configure("auto", false, false, false);
}

void Console::configure(std::string_view color, bool quiet, bool verbose, bool json) {
  const char* no_color = std::getenv("NO_COLOR");
  const bool wanted = terminal_ && (no_color == nullptr || *no_color == '\0');
  color_ = color == "always" || (color == "auto" && wanted);
  quiet_ = quiet;
  verbose_ = verbose;
  json_ = json;
}

bool Console::write(std::string_view text) {
  while (!closed_ && !text.empty()) {
    const ssize_t n = ::write(STDOUT_FILENO, text.data(), text.size());
    if (n >= 0) {
      text.remove_prefix(static_cast<std::size_t>(n));
    } else if (errno == EPIPE || errno == EBADF) {  // gone, or closed from the start
      closed_ = true;
    } else if (errno != EINTR) {
      throw Error(
          {.exit = Exit::kFailed,
           .code = "cannot_write",
           .message = std::string("cannot write to standard output: ") + std::strerror(errno)});
    }
  }
  return !closed_;
}

void Console::document(const Json& json) {
  write(json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

void Console::note(const std::string& line) {
  bar("");
  if (!quiet_) print(one_line(line) + "\n");
}

void Console::aside(const std::string& line) {
  if (!quiet_) print(painted(kDim, one_line(line)) + "\n");
}

void Console::detail(const std::string& line) {
  if (verbose_) print(one_line(line) + "\n");
}

void Console::error(const ErrorInfo& info) {
  print(painted(kRed, "error:") + " " + one_line(about_file(info)) + "\n");
  if (!info.hint.empty()) print(painted(kBold, "hint:") + " " + one_line(info.hint) + "\n");
  if (json_) document(error_document(info));
}

void Console::bar(const std::string& line) {
  if (!terminal_ || quiet_ || (line.empty() && !bar_shown_)) return;
  print(kClearLine + line);
  bar_shown_ = !line.empty() && !line.ends_with('\n');
}

std::string Console::painted(const char* code, const std::string& text) const {
  return color_ ? code + text + kNormal : text;
}

void Console::print(const std::string& text) const {
  // Nothing can be done when standard error is gone, and the answer matters more.
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t n = ::write(STDERR_FILENO, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return;
    rest.remove_prefix(static_cast<std::size_t>(n));
  }
}

}  // namespace qwen::cli
