#include "tools/qwen/input.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <limits>

#include "core/error.h"

namespace qwen::cli {

std::string read_input(const std::string& path) {
  const bool standard = path == "-";
  const int fd = standard ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  std::string text;
  int error = fd < 0 ? errno : 0;
  std::array<char, 65536> buffer;
  while (error == 0) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n == 0) break;
    if (n > 0) {
      text.append(buffer.data(), static_cast<std::size_t>(n));
    } else if (errno != EINTR) {
      error = errno;
    }
  }
  if (!standard && fd >= 0) close(fd);
  if (error != 0) {
    throw Error({.exit = Exit::kUsage,
                 .code = "cannot_read",
                 .message = "cannot read " + (standard ? "standard input" : path) + ": " +
                            std::strerror(error)});
  }
  return text;
}

void TextOptions::declare_text(Parser& parser) {
  parser.text_option("-p,--prompt", prompt, "the text");
  parser.text_option("-f,--file", file, "a file with the text; - is standard input");
}

void TextOptions::declare_ids(Parser& parser) {
  parser.integers("--ids", ids, {0, std::numeric_limits<std::int32_t>::max()},
                  "token ids instead of a text: 1,2,3");
}

TextOptions::Input TextOptions::read(const std::vector<std::string>& words,
                                     const std::string& what) const {
  std::vector<std::string> sources;
  if (prompt.chosen()) sources.push_back("-p");
  if (file.chosen()) sources.push_back("-f");
  if (ids.chosen()) sources.push_back("--ids");
  if (!words.empty()) sources.push_back("the argument '" + words.front() + "'");
  if (sources.size() > 1) {
    usage_error("two sources of the " + what + ": " + sources[0] + " and " + sources[1]);
  }
  Input input;
  if (prompt.chosen()) {
    input.text = prompt.value;
  } else if (ids.chosen()) {
    input.ids.emplace(ids.value.begin(), ids.value.end());
  } else if (!words.empty()) {
    input.text = words.front();
  } else {
    if (!file.chosen() && isatty(STDIN_FILENO) != 0) {
      usage_error("no " + what + " given", "-p TEXT, -f FILE, or standard input");
    }
    input.text = read_input(file.chosen() ? file.value : "-");
    input.from_stream = true;
    if (input.text.empty()) {
      usage_error("the " + what + " is empty: nothing came from " +
                      (file.chosen() && file.value != "-" ? file.value : "standard input"),
                  "-p TEXT gives one");
    }
  }
  return input;
}

}  // namespace qwen::cli
