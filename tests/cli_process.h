// Runs the built program as a child process and collects what it writes.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/fixtures/tiny_model.h"

namespace qwen::testing {

using Args = std::vector<std::string>;
using Json = nlohmann::ordered_json;

struct Result {
  int code = -1;  // exit code, or 1000 + the signal that ended it
  std::string out;
  std::string err;

  Json json() const { return Json::parse(out); }
};

struct Surroundings {
  std::vector<std::string> environment = {};  // "NAME=value": all of the child's environment
  std::string input = {};                     // on standard input
  bool input_is_terminal = false;
  bool errors_to_terminal = false;
  bool input_stays_open = false;  // the child would wait for more
};

// A running child. Standard output is a small pipe, so that a reader who does not read holds the
// child up soon.
class Child {
 public:
  Child(const Args& args, const Surroundings& setup = {}) {
    std::array<int, 2> in{-1, -1}, out{-1, -1}, err{-1, -1};
    open_pipe(out);
    if (setup.input_is_terminal) {
      open_terminal(in[1], in[0]);
    } else {
      open_pipe(in);
    }
    if (setup.errors_to_terminal) {
      open_terminal(err[0], err[1]);
    } else {
      open_pipe(err);
    }
    fcntl(out[1], F_SETPIPE_SZ, 4096);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      dup2(err[1], STDERR_FILENO);
      clearenv();
      for (const std::string& entry : setup.environment) {
        const std::size_t equals = entry.find('=');
        setenv(entry.substr(0, equals).c_str(), entry.substr(equals + 1).c_str(), 1);
      }
      std::vector<char*> argv = {const_cast<char*>(QWEN_PROGRAM)};
      for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
      argv.push_back(nullptr);
      execv(QWEN_PROGRAM, argv.data());
      _exit(99);
    }
    close(in[0]);
    close(out[1]);
    close(err[1]);
    out_ = out[0];
    err_ = err[0];
    in_ = in[1];
    if (setup.input_is_terminal || setup.input_stays_open) return;
    // Small enough for the pipe: no child can be held up by it.
    EXPECT_EQ(write(in_, setup.input.data(), setup.input.size()),
              static_cast<ssize_t>(setup.input.size()));
    close_input();
  }
  ~Child() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    close_input();
    close_output();
    close(err_);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void signal(int number) const { ::kill(pid_, number); }
  bool alive() {
    if (pid_ < 0) return false;
    if (waitpid(pid_, &status_, WNOHANG) == pid_) pid_ = -1;
    return pid_ > 0;
  }
  // Waits until something can be read on standard output, or five seconds.
  bool wait_for_output() const {
    pollfd wait{out_, POLLIN, 0};
    return poll(&wait, 1, 5000) == 1;
  }
  int output() const { return out_; }
  void close_output() {
    if (out_ >= 0) close(out_);
    out_ = -1;
  }

  // Reads to the end and waits for it.
  Result finish() {
    Result result;
    bool out_open = out_ >= 0;
    bool err_open = true;
    while (out_open || err_open) {
      std::array<pollfd, 2> wait = {pollfd{out_open ? out_ : -1, POLLIN, 0},
                                    pollfd{err_open ? err_ : -1, POLLIN, 0}};
      poll(wait.data(), wait.size(), -1);
      if (wait[0].revents != 0) out_open = read_some(out_, result.out);
      if (wait[1].revents != 0) err_open = read_some(err_, result.err);
    }
    if (pid_ > 0) waitpid(pid_, &status_, 0);
    pid_ = -1;
    result.code = WIFEXITED(status_) ? WEXITSTATUS(status_) : 1000 + WTERMSIG(status_);
    return result;
  }

 private:
  static void open_pipe(std::array<int, 2>& ends) { ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0); }
  static void open_terminal(int& ours, int& theirs) {
    ASSERT_EQ(openpty(&ours, &theirs, nullptr, nullptr, nullptr), 0);
    fcntl(ours, F_SETFD, FD_CLOEXEC);
    fcntl(theirs, F_SETFD, FD_CLOEXEC);
  }
  // False at the end; a terminal says EIO there.
  static bool read_some(int fd, std::string& to) {
    std::array<char, 4096> buffer;
    const ssize_t n = read(fd, buffer.data(), buffer.size());
    if (n > 0) to.append(buffer.data(), static_cast<std::size_t>(n));
    return n > 0 || (n < 0 && errno == EINTR);
  }
  void close_input() {
    if (in_ >= 0) close(in_);
    in_ = -1;
  }

  pid_t pid_ = -1;
  int status_ = 0;
  int in_ = -1, out_ = -1, err_ = -1;
};

inline Result run_program(const Args& args, const Surroundings& setup = {}) {
  return Child(args, setup).finish();
}

// A folder with a tiny model, gone when the tests end.
class CliTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string name = (std::filesystem::temp_directory_path() / "qwen_cli_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    write_model("tiny.gguf", {});
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(folder_); }

  static std::string path(const std::string& name) { return (folder_ / name).string(); }
  static std::string model() { return path("tiny.gguf"); }
  static void write_model(const std::string& name, const fixtures::TinyModelSpec& spec) {
    fixtures::write_file(path(name), fixtures::tiny_model(spec).bytes());
  }
  static void write_text(const std::string& name, const std::string& text) {
    fixtures::Bytes bytes;
    for (const char c : text) bytes.push_back(static_cast<std::byte>(c));
    fixtures::write_file(path(name), bytes);
  }
  // With the tiny model in front.
  static Result qwen(Args args, const Surroundings& setup = {}) {
    args.insert(args.end(), {"-m", model()});
    return run_program(args, setup);
  }

 private:
  static inline std::filesystem::path folder_;
};

inline void expect_keys(const Json& object, const std::vector<std::string>& keys) {
  std::vector<std::string> got;
  for (const auto& [key, value] : object.items()) got.push_back(key);
  EXPECT_EQ(got, keys);
}

// Arguments for the likeliest token each time.
inline Args greedy(Args more) {
  more.insert(more.begin(), {"--temp", "0", "--repeat-penalty", "1"});
  return more;
}

// A failed run: its code, one line that begins with "error: " and holds `text`, perhaps a hint, and
// nothing on standard output.
inline void expect_failure(const Result& result, int code, const std::string& text,
                           const std::string& hint = "") {
  EXPECT_EQ(result.code, code) << result.err;
  EXPECT_EQ(result.out, "");
  const std::size_t at = result.err.find("error: ");
  ASSERT_NE(at, std::string::npos) << result.err;
  EXPECT_TRUE(at == 0 || result.err[at - 1] == '\n') << result.err;
  const std::string rest = result.err.substr(at);
  const std::string line = rest.substr(0, rest.find('\n'));
  EXPECT_NE(line.find(text), std::string::npos) << line;
  const std::string after = rest.substr(line.size() + 1);
  EXPECT_TRUE(after.empty() || after.starts_with("hint: ")) << after;
  EXPECT_LE(std::count(after.begin(), after.end(), '\n'), 1) << after;
  EXPECT_NE(after.find(hint), std::string::npos) << after;
}

}  // namespace qwen::testing
