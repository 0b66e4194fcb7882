// Files that change while they are in use: what is noticed, what is said of it, and what becomes of
// the faults of others.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>

#include "core/error.h"
#include "loader/file_change.h"
#include "loader/gguf.h"
#include "loader/guard_slot.h"
#include "loader/guarded_range.h"
#include "loader/scan.h"
#include "loader/source.h"
#include "loader/vocabulary.h"
#include "tests/error_of.h"
#include "tests/hostile_cases.h"
#include "tests/unnamed_file.h"

namespace qwen::testing {
namespace {

constexpr std::size_t kPage = 4096;

char read_byte(const volatile void* memory) { return *static_cast<const volatile char*>(memory); }

TEST(FileChange, IsNamedByWhatTheSystemSays) {
  struct stat opened {};
  opened.st_size = 9000;
  opened.st_mtim = {.tv_sec = 5, .tv_nsec = 6};
  opened.st_ctim = {.tv_sec = 7, .tv_nsec = 8};
  const auto change = [&](const std::function<void(struct stat&)>& edit,
                          std::optional<std::uint64_t> lost) {
    struct stat now = opened;
    edit(now);
    const auto found = find_change(opened, now, lost);
    return found ? found->code + ": " + found->message : "";
  };
  const auto none = [](struct stat&) {};
  const auto cut = [](struct stat& s) { s.st_size = 4096; };
  const auto seconds = [](struct stat& s) { ++s.st_mtim.tv_sec; };
  const auto nanoseconds = [](struct stat& s) { ++s.st_mtim.tv_nsec; };
  const auto renamed = [](struct stat& s) { ++s.st_ctim.tv_nsec; };
  const std::string cut_text =
      "file_changed: file was changed while in use: it had 9000 bytes, now 4096";
  const std::string touched_text =
      "file_changed: file was changed while in use: its modification time is another (it has 9000 "
      "bytes, as before)";
  EXPECT_EQ(change(none, {}), "");
  EXPECT_EQ(change(renamed, {}), "");
  EXPECT_EQ(change(cut, {}), cut_text);
  EXPECT_EQ(change(cut, 4096), cut_text);
  EXPECT_EQ(change(seconds, {}), touched_text);
  EXPECT_EQ(change(nanoseconds, 4096), touched_text);
  EXPECT_EQ(
      change(renamed, 4096),
      "file_changed: file was changed while in use: the page at offset 4096 was missing for a "
      "while, or its disk failed");
  EXPECT_EQ(change(none, 4096),
            "read_error: file cannot be read: the system reported an error for the page at offset "
            "4096");
  EXPECT_EQ(unknown_change(EIO).code, "read_error");
}

TEST(ReadUnchanged, GivesTheResultOrTheCause) {
  const UnnamedFile file(Bytes(10));
  const auto source = open_file(file.path());
  EXPECT_EQ(read_unchanged(*source, [] { return 7; }), 7);
  const auto fail = [] { throw Error({.exit = Exit::kModel, .code = "mine", .message = "m"}); };
  const ErrorInfo e = error_of([&] { read_unchanged(*source, fail); });
  EXPECT_EQ(e.code, "mine");
  EXPECT_EQ(e.file, file.path());
  file.touch();
  EXPECT_EQ(error_of([&] { read_unchanged(*source, [] { return 7; }); }).code, "file_changed");
  EXPECT_EQ(error_of([&] { read_unchanged(*source, fail); }).code, "file_changed");
}

// What the loader reads after the parser is checked again.
TEST(ReadUnchanged, IsWhatEveryReaderOfAFileDoes) {
  const UnnamedFile file(valid_model().bytes());
  const Gguf gguf = Gguf::parse(open_file(file.path()));
  const auto code = [](const auto& read) { return error_of(read).code; };
  EXPECT_EQ(code([&] { read_tokenizer(gguf); }), "");
  EXPECT_EQ(code([&] { read_sampling_defaults(gguf); }), "");
  EXPECT_EQ(code([&] { find_not_finite(gguf); }), "");
  file.touch();
  EXPECT_EQ(code([&] { Gguf::parse(gguf.source()); }), "file_changed");
  EXPECT_EQ(code([&] { read_tokenizer(gguf); }), "file_changed");
  EXPECT_EQ(code([&] { read_sampling_defaults(gguf); }), "file_changed");
  EXPECT_EQ(code([&] { find_not_finite(gguf); }), "file_changed");
}

// The key of a refusal may be gone from a file that is written to.
TEST(Gguf, RefusesAKeyThatIsGone) {
  const Gguf gguf = Gguf::parse(from_memory(valid_model().bytes(), "file.gguf"));
  const ErrorInfo e = gguf.refusal("gone", "code", "message").info();
  EXPECT_FALSE(e.offset.has_value());
  EXPECT_EQ(e.key, "gone");
  EXPECT_TRUE(gguf.refusal("general.architecture", "code", "message").info().offset.has_value());
}

// A fault may come while another thread closes one file and opens the next.
TEST(GuardSlot, GivesBothBoundsOfOneRange) {
  constexpr AddressRange kLow = {1, 2}, kHigh = {8, 9};
  GuardSlot slot;
  std::atomic<bool> done = false;
  std::atomic<int> rounds = 0;
  std::thread writer([&] {
    while (!done) {
      for (const AddressRange& range : {kLow, AddressRange{}, kHigh, AddressRange{}}) {
        slot.set(range);
      }
      ++rounds;
    }
  });
  int n_torn = 0;
  while (rounds < 1'000'000) {
    const AddressRange range = slot.range();
    if (range != AddressRange{} && range != kLow && range != kHigh) ++n_torn;
  }
  done = true;
  writer.join();
  EXPECT_EQ(n_torn, 0);
  slot.set(kHigh);
  EXPECT_EQ(slot.range(), kHigh);
}

TEST(GuardedRange, KnowsTheFirstPageThatWasLost) {
  const UnnamedFile file(Bytes(5 * kPage, std::byte{1}));
  const auto* memory = static_cast<std::byte*>(
      mmap(nullptr, 5 * kPage, PROT_READ, MAP_PRIVATE, file.descriptor(), 0));
  const GuardedRange guard({memory, 5 * kPage});
  file.cut(kPage);
  EXPECT_EQ(read_byte(memory), 1);
  EXPECT_EQ(guard.lost(), std::nullopt);
  EXPECT_EQ(read_byte(memory + 3 * kPage + 5), 0);
  EXPECT_EQ(read_byte(memory + 2 * kPage), 0);
  EXPECT_EQ(guard.lost(), 3 * kPage);
}

// The handler that was there before the first guard. Ends the process at the first thing that is
// not as it should be.
volatile int n_handled = 0;

void require(bool holds, int exit_code) {
  if (!holds) _exit(exit_code);
}

void handle(int, siginfo_t* info, void*) {
  n_handled = n_handled + 1;
  errno = 1;
  if (info->si_code <= 0) return;  // raise()
  // Repairs its own page, as a guard of another library would.
  const auto page = reinterpret_cast<std::uintptr_t>(info->si_addr) / kPage * kPage;
  require(mmap(reinterpret_cast<void*>(page), kPage, PROT_READ,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED,
          10);
}

void set_handler(int flags, void (*action)(int, siginfo_t*, void*)) {
  struct sigaction before {};
  before.sa_flags = SA_SIGINFO | flags;
  before.sa_sigaction = action;
  sigaction(SIGBUS, &before, nullptr);
}

// A page of somebody else, of a file that has become empty.
const void* lost_page() {
  const UnnamedFile file(Bytes(1));
  const void* page = mmap(nullptr, 1, PROT_READ, MAP_SHARED, file.descriptor(), 0);
  file.cut(0);
  return page;
}

// A guarded file that is cut reads as zeros, and `n` signals were for the handler before.
void require_guard(int n, int exit_code) {
  const UnnamedFile file(Bytes(2 * kPage, std::byte{1}));
  const auto source = open_file(file.path());
  file.cut(kPage);
  errno = 77;
  require(read_byte(&source->bytes()[kPage]) == 0, exit_code);
  require(errno == 77 && n_handled == n, exit_code + 1);
}

void hand_on_faults() {
  set_handler(0, handle);
  require_guard(0, 20);
  for (int round = 1; round <= 3; ++round) {
    errno = 77;
    require(read_byte(lost_page()) == 0 && n_handled == 2 * round - 1, 30);
    raise(SIGBUS);
    require(n_handled == 2 * round && errno == 77, 40);
    require_guard(2 * round, 50);
  }
  std::exit(0);  // not _exit: coverage is written at the end
}

void ignore_signals() {
  signal(SIGBUS, SIG_IGN);
  raise(SIGBUS);
  require_guard(0, 20);
  raise(SIGBUS);
  require_guard(0, 30);
}

void ignore_a_fault() {
  ignore_signals();
  read_byte(lost_page());
  _exit(40);
}

void hand_on_to_a_handler_for_one_time() {
  set_handler(SA_RESETHAND, handle);
  require_guard(0, 20);
  raise(SIGBUS);
  require_guard(1, 30);
  raise(SIGBUS);
  _exit(40);
}

// A library that had the signal before the first guard puts back what it had found.
void lose_the_handler() {
  set_handler(0, handle);
  require_guard(0, 20);
  signal(SIGBUS, SIG_DFL);
  require_guard(0, 30);
}

struct sigaction below;

// A handler that came later and hands on is not passed over, else the two would go in a circle.
void stay_below_a_handler() {
  set_handler(0, handle);
  require_guard(0, 20);
  sigaction(SIGBUS, nullptr, &below);
  set_handler(0,
              [](int n, siginfo_t* info, void* context) { below.sa_sigaction(n, info, context); });
  require_guard(0, 30);
  require(read_byte(lost_page()) == 0 && n_handled == 1, 40);
  std::exit(0);
}

// Each in a process of its own: the handler is installed once.
TEST(GuardedRangeDeathTest, HandsTheFaultsOfOthersOnAndStays) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(hand_on_faults(), ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT((ignore_signals(), std::exit(0)), ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(ignore_a_fault(), ::testing::KilledBySignal(SIGBUS), "");
  EXPECT_EXIT(hand_on_to_a_handler_for_one_time(), ::testing::KilledBySignal(SIGBUS), "");
  EXPECT_EXIT((lose_the_handler(), std::exit(0)), ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT((lose_the_handler(), read_byte(lost_page())), ::testing::KilledBySignal(SIGBUS), "");
  EXPECT_EXIT(stay_below_a_handler(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace qwen::testing
