// Files that are none, files that are mostly holes, and files that change while they are open.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "backends/cpu/reference/reference.h"
#include "core/session.h"
#include "loader/gguf.h"
#include "loader/guarded_range.h"
#include "loader/vocabulary.h"
#include "loader/weights.h"
#include "tests/allocation_peak.h"
#include "tests/error_of.h"
#include "tests/fixtures/tiny_model.h"
#include "tests/hostile_cases.h"

namespace qwen::testing {
namespace {

constexpr std::size_t kMaxExtraBytes = 64 << 20;

class HostileFile : public ::testing::Test {
 protected:
  HostileFile()
      : folder_(std::filesystem::temp_directory_path() /
                ("qwen_hostile_" + std::to_string(getpid()))) {
    std::filesystem::create_directory(folder_);
  }
  ~HostileFile() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return folder_ / name; }
  std::string written(const Bytes& bytes) const {
    fixtures::write_file(path("model.gguf"), bytes);
    return path("model.gguf");
  }

  static ErrorInfo refused(const std::string& path) {
    return error_of([&] { Gguf::parse(open_file(path)); });
  }

 private:
  std::filesystem::path folder_;
};

// A mapping that nobody guards, of a file that ends before its page does.
void read_after_cut(const std::string& path) {
  const int file = open(path.c_str(), O_RDWR);
  void* const page = mmap(nullptr, 1, PROT_READ, MAP_SHARED, file, 0);
  if (file < 0 || page == MAP_FAILED || ftruncate(file, 0) != 0) _exit(0);
  _exit(*static_cast<const volatile char*>(page) == 0 ? 0 : 1);
}

// Case 32: the file is long enough for its array, so only a fixed limit can refuse it.
TEST_F(HostileFile, ASparseFileDoesNotCostMemory) {
  for (const std::uint32_t element : {0u, 8u}) {
    GgufWriter w = valid_model();
    Bytes value;
    fixtures::append(value, element);
    fixtures::append(value, (std::uint64_t{1} << 30) / (element == 0 ? 1 : 8));
    w.set_raw("bad", fixtures::kArrayId, value);
    const std::string file = written(w.bytes());
    std::filesystem::resize_file(file, (1ull << 30) + (1 << 20));
    const AllocationPeak peak;
    const ErrorInfo e = refused(file);
    EXPECT_EQ(e.code, "array_too_large");
    EXPECT_EQ(e.key, "bad");
    EXPECT_LE(peak.bytes(), kMaxExtraBytes);
  }
}

// Strings that are each small enough: in one array, and in one pair each.
TEST_F(HostileFile, ManyLongStringsAreRefused) {
  const std::string file = path("long.gguf");
  const auto write = [&](std::uint64_t n_keys, std::uint32_t strings_per_key) {
    std::ofstream out(file, std::ios::binary | std::ios::trunc);
    const auto put = [&](auto value) {
      out.write(reinterpret_cast<const char*>(&value), sizeof value);
    };
    out << "GGUF";
    put(std::uint32_t{3});
    put(std::uint64_t{0});
    put(n_keys);
    for (std::uint64_t key = 0; key < n_keys; ++key) {
      put(std::uint64_t{4});
      put(static_cast<std::uint32_t>(key + 0x30303030));
      put(fixtures::kArrayId);
      put(fixtures::kTypeId<std::string>);
      put(std::uint64_t{strings_per_key});
      for (std::uint32_t i = 0; i < strings_per_key; ++i) {
        put(std::uint64_t{15 << 20});
        out.seekp(15 << 20, std::ios::cur);  // a hole
      }
    }
    put(std::uint32_t{0});
  };
  write(1, 5);
  EXPECT_EQ(refused(file).code, "array_too_large");
  write(6, 4);
  EXPECT_EQ(refused(file).code, "metadata_too_large");
}

// Case 93.
TEST_F(HostileFile, WhatIsNoRegularFileIsNotRead) {
  const auto open = [](const std::string& name) { return error_of([&] { open_file(name); }); };
  ASSERT_EQ(mkfifo(path("fifo").c_str(), 0600), 0);
  std::filesystem::create_symlink(path("nothing"), path("link"));
  std::filesystem::create_symlink(path("loop"), path("loop"));
  fixtures::write_file(path("empty"), {});
  // A socket's address has room for 107 bytes: the folder of temporary files may have a longer
  // path.
  std::string short_folder = "/tmp/qwen_XXXXXX";
  ASSERT_NE(mkdtemp(short_folder.data()), nullptr);
  const std::string socket_path = short_folder + "/socket";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
  const int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(bind(server, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);

  for (const std::string& name : {path("fifo"), socket_path, path(""), std::string("/dev/zero")}) {
    const ErrorInfo e = open(name);
    EXPECT_EQ(e.code, "not_a_regular_file") << name;
    EXPECT_EQ(e.exit, Exit::kModel);
    EXPECT_EQ(e.file, name);
    EXPECT_TRUE(e.offset.has_value());
  }
  EXPECT_EQ(open(path("link")).code, "dangling_link");
  EXPECT_EQ(open(path("loop")).code, "cannot_open");
  EXPECT_EQ(open(path("absent")).code, "file_not_found");
  EXPECT_EQ(open(path("empty") + "/file").code, "file_not_found");
  EXPECT_EQ(open(path("empty")).code, "empty_file");
  close(server);
  std::filesystem::remove_all(short_folder);
}

// Case 94, before, while and after the directory is read.
TEST_F(HostileFile, ACutFileReadsAsZerosAndIsNoticed) {
  const Bytes bytes = valid_model().bytes();
  const auto source = open_file(written(bytes));
  ASSERT_GT(bytes.size(), 8192u);
  std::filesystem::resize_file(source->name(), 4096);
  EXPECT_EQ(source->bytes()[4095], bytes[4095]);
  for (std::size_t i = 4096; i < bytes.size(); ++i) ASSERT_EQ(source->bytes()[i], std::byte{0});
  EXPECT_EQ(error_of([&] { source->check_unchanged(); }).code, "file_changed");
  const ErrorInfo e = error_of([&] { Gguf::parse(source); });
  EXPECT_EQ(e.code, "file_changed") << e.message;
  EXPECT_EQ(e.exit, Exit::kModel);
  EXPECT_EQ(e.file, source->name());
}

TEST_F(HostileFile, ACutFileThatHasItsLengthAgainIsNoticed) {
  const Bytes bytes = valid_model().bytes();
  const auto source = open_file(written(bytes));
  const auto time = std::filesystem::last_write_time(source->name());
  std::filesystem::resize_file(source->name(), 4096);
  EXPECT_EQ(source->bytes().back(), std::byte{0});
  std::filesystem::resize_file(source->name(), bytes.size());
  std::filesystem::last_write_time(source->name(), time);
  EXPECT_EQ(error_of([&] { source->check_unchanged(); }).code, "file_changed");
}

TEST_F(HostileFile, AModelWhoseFileIsCutEndsInAnError) {
  // Weights of several pages, so that the cut leaves the metadata alone.
  const auto source = open_file(
      written(fixtures::tiny_model({.n_layers = 1, .ffn_dim = 256, .outliers = false}).bytes()));
  GgufModelFile file(Gguf::parse(source));
  ReferenceBackend backend;
  const auto model = load_model(file, backend);
  Session session(*model, backend, {.ctx = 8, .max_step_tokens = 8});
  const std::vector<std::int32_t> ids = {1, 2, 3};
  session.prefill(0, ids);
  session.queue_sample();
  session.queue_decode();
  std::filesystem::resize_file(source->name(), source->bytes().size() / 2);
  EXPECT_EQ(error_of([&] { session.take(); }).code, "file_changed");
  EXPECT_EQ(error_of([&] { session.prefill(0, ids); }).code, "file_changed");
}

// Case 95.
TEST_F(HostileFile, AFileThatIsReplacedIsReadToItsEnd) {
  const Bytes bytes = valid_model().bytes();
  const auto source = open_file(written(bytes));
  fixtures::write_file(path("other.gguf"), Bytes(100, std::byte{1}));
  std::filesystem::rename(path("other.gguf"), source->name());
  EXPECT_EQ(Gguf::parse(source).file_bytes(), bytes.size());  // the old one, which is still there
}

TEST_F(HostileFile, AFileThatIsRewrittenInPlaceIsNoticed) {
  const Bytes bytes = valid_model().bytes();
  const auto source = open_file(written(bytes));
  const Gguf gguf = Gguf::parse(source);
  const auto tokens = gguf.find_array<std::string_view>("tokenizer.ggml.tokens");
  ASSERT_TRUE(tokens.has_value());
  {
    std::fstream out(source->name(), std::ios::binary | std::ios::in | std::ios::out);
    out.seekp(tokens->bytes.data() - source->bytes().data() + 9);  // the second token's length
    const std::uint64_t length = std::numeric_limits<std::uint64_t>::max();
    out.write(reinterpret_cast<const char*>(&length), sizeof length);
  }
  // File systems may keep time by the tick: the rewriting came later.
  const auto written_at = std::filesystem::last_write_time(source->name());
  std::filesystem::last_write_time(source->name(), written_at + std::chrono::seconds(1));
  EXPECT_EQ(error_of([&] { read_tokenizer(gguf); }).code, "file_changed");
  EXPECT_EQ(error_of([&] { Gguf::parse(source); }).code, "file_changed");
}

TEST_F(HostileFile, AsManyFilesAsThereAreGuards) {
  const std::string file = written(valid_model().bytes());
  std::vector<std::shared_ptr<const Source>> open;
  for (int i = 0; i < 64; ++i) open.push_back(open_file(file));
  EXPECT_EQ(error_of([&] { open_file(file); }).code, "too_many_files");
  open.pop_back();
  open.push_back(open_file(file));
}

// A fault elsewhere is not ours: it ends the process as it always did.
TEST_F(HostileFile, OtherBusErrorsAreNotSwallowed) {
  const auto source = open_file(written(valid_model().bytes()));
  EXPECT_DEATH(raise(SIGBUS), "");
  const std::string other = path("other");
  fixtures::write_file(other, Bytes(1, std::byte{1}));
  EXPECT_DEATH(read_after_cut(other), "");
}

TEST_F(HostileFile, BrokenModelsAreRefusedAsTheFixtureSays) {
  for (const fixtures::Breakage& breakage : fixtures::breakages()) {
    const std::string file = written(fixtures::broken_model({}, breakage.name));
    const ErrorInfo e = error_of([&] { read_tokenizer(Gguf::parse(open_file(file))); });
    // An empty code: the parser must accept the file, the model is to refuse it.
    EXPECT_EQ(e.code, breakage.code) << breakage.name;
  }
}

}  // namespace
}  // namespace qwen::testing
