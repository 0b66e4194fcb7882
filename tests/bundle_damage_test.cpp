// Damaged repro bundles are refused; verify.py judges by itself.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/crosscheck/npy.h"
#include "tests/bundle_runs.h"
#include "tests/error_of.h"

namespace qwen::testing {
namespace {

namespace fs = std::filesystem;
using crosscheck::NpyArray;
using crosscheck::read_npy;
using crosscheck::write_npy;

std::string text_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

void replace_in(const std::string& path, const std::string& from, const std::string& to) {
  std::string text = text_of(path);
  const std::size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  write_text(path, text.replace(at, from.size(), to));
}

// Of the same length, so that the data stay where they are.
void replace_shape(const std::string& path, const std::string& from, std::string to) {
  const std::string rest = "), }";
  std::string padded = from + rest;
  padded.resize(std::max(padded.size(), to.size() + rest.size()), ' ');
  to += rest;
  to.resize(padded.size(), ' ');
  replace_in(path, padded, to);
}

template <class T>
void set_first(const std::string& path, T value) {
  NpyArray array = read_npy(path);
  std::memcpy(array.bytes.data(), &value, sizeof value);
  write_npy(path, array);
}

template <class T>
T first(const std::string& path) {
  T value;
  std::memcpy(&value, read_npy(path).bytes.data(), sizeof value);
  return value;
}

struct Damage {
  const char* name;
  const char* code;
  void (*inflict)(const std::string& folder);
  bool seen_by_script = true;
};

// Of a bundle of Attention.
constexpr Damage kDamages[] = {
    {"no_description", "damaged_bundle",
     [](const std::string& f) { fs::remove(f + "/contract.json"); }},
    {"half_a_description", "damaged_bundle",
     [](const std::string& f) {
       fs::resize_file(f + "/contract.json", fs::file_size(f + "/contract.json") / 2);
     }},
    {"nested_description", "damaged_bundle",
     [](const std::string& f) { write_text(f + "/contract.json", std::string(100'000, '[')); }},
    {"unknown_op", "damaged_bundle",
     [](const std::string& f) { replace_in(f + "/contract.json", "Attention", "Intention"); }},
    {"unknown_type", "damaged_bundle",
     [](const std::string& f) { replace_in(f + "/contract.json", "\"F32\"", "\"F31\""); }, false},
    {"no_scale", "damaged_bundle",
     [](const std::string& f) { replace_in(f + "/contract.json", "\"scale\"", "\"s\""); }},
    {"text_for_a_number", "damaged_bundle",
     [](const std::string& f) {
       replace_in(f + "/contract.json", "\"scale\": ", "\"scale\": [],\"s\": ");
     }},
    {"negative_depth", "damaged_bundle",
     [](const std::string& f) {
       replace_in(f + "/contract.json", "\"sum_depth\": ", "\"sum_depth\": -");
     },
     false},
    {"huge_shape", "damaged_bundle",
     [](const std::string& f) {
       replace_in(f + "/contract.json", "\"shape\": [", "\"shape\": [4000000000000000000,");
     }},
    {"no_input", "damaged_npy", [](const std::string& f) { fs::remove(f + "/k_cache.npy"); }},
    {"no_output", "damaged_npy", [](const std::string& f) { fs::remove(f + "/got_lse.npy"); }},
    {"cut", "damaged_npy",
     [](const std::string& f) {
       fs::resize_file(f + "/got_out.npy", fs::file_size(f + "/got_out.npy") - 1);
     }},
    {"too_long", "damaged_npy",
     [](const std::string& f) { fs::resize_file(f + "/q.npy", fs::file_size(f + "/q.npy") + 1); },
     false},
    {"empty", "damaged_npy", [](const std::string& f) { fs::resize_file(f + "/q.npy", 0); }},
    {"a_folder", "damaged_npy",
     [](const std::string& f) {
       fs::remove(f + "/q.npy");
       fs::create_directory(f + "/q.npy");
     }},
    {"another_format", "damaged_npy",
     [](const std::string& f) { replace_in(f + "/q.npy", "NUMPY", "NUMBY"); }},
    {"absurd_shape", "damaged_npy",
     [](const std::string& f) {
       replace_shape(f + "/q.npy", "(8, 14, 64", "(88888888888888, 14, 64");
     }},
    {"overflowing_shape", "damaged_npy",
     [](const std::string& f) {
       replace_shape(f + "/q.npy", "(8, 14, 64", "(999999999999999999, 999999999");
     }},
    {"negative_shape", "damaged_npy",
     [](const std::string& f) { replace_shape(f + "/q.npy", "(8, 14, 64", "(-8, -14, 64"); }},
    {"header_beyond_the_end", "damaged_npy",
     [](const std::string& f) {
       std::string text = text_of(f + "/q.npy");
       text[8] = text[9] = '\xff';
       write_text(f + "/q.npy", text);
     }},
    {"another_shape", "damaged_bundle",
     [](const std::string& f) { replace_shape(f + "/got_out.npy", "(8, 14, 64", "(14, 8, 64"); }},
    {"another_type", "damaged_bundle",
     [](const std::string& f) { replace_in(f + "/pos.npy", "<i4", "<f4"); }},
    {"position_beyond_the_cache", "damaged_bundle",
     [](const std::string& f) { set_first(f + "/pos.npy", std::int32_t{1} << 30); }, false},
    {"page_beyond_the_cache", "damaged_bundle",
     [](const std::string& f) { set_first(f + "/pages.npy", std::int32_t{1} << 30); }},
    {"negative_sequence", "damaged_bundle",
     [](const std::string& f) { set_first(f + "/seq.npy", std::int32_t{-1}); }, false},
};

TEST_F(BundleTest, DamagedOnesAreRefused) {
  const std::string whole = written("M8a");
  std::vector<std::string> folders;
  for (const Damage& damage : kDamages) {
    SCOPED_TRACE(damage.name);
    const std::string folder = dir_ + "/" + damage.name;
    fs::copy(whole, folder, fs::copy_options::recursive);
    damage.inflict(folder);
    const ErrorInfo refusal = error_of([&] {
      cli::StoredBundle stored = cli::read_bundle(folder);
      cli::judge_kept(folder, reference_, stored.bundle);
    });
    EXPECT_EQ(refusal.code, damage.code) << refusal.message;
    EXPECT_EQ(refusal.exit, Exit::kModel);
    EXPECT_NE((refusal.file + refusal.message).find(folder), std::string::npos) << refusal.message;
    EXPECT_EQ(refusal.message.find('\n'), std::string::npos) << refusal.message;
    EXPECT_NE(refusal.hint, "");
    if (damage.seen_by_script) folders.push_back(folder);
  }
  if (!has_numpy()) GTEST_SKIP() << python() << " has no NumPy: verify.py is not run";
  fs::copy_file(whole + "/verify.py", folders.front() + "/verify.py",
                fs::copy_options::overwrite_existing);
  std::string output;
  EXPECT_EQ(verify(folders, output), 3) << output;
  std::size_t refused = 0;
  for (std::size_t at = 0; (at = output.find("the bundle is damaged", at)) != std::string::npos;) {
    ++refused, ++at;
  }
  EXPECT_EQ(refused, folders.size()) << output;
}

// What verify.py is for: each of these changes makes it disagree with what is written.
TEST_F(BundleTest, TheScriptJudgesByItself) {
  if (!has_numpy()) GTEST_SKIP() << python() << " has no NumPy: verify.py is not run";
  const std::string whole = written("M9b");
  std::string output;
  EXPECT_EQ(verify({whole}, output), 0) << output;
  const std::pair<const char*, void (*)(const std::string&)> changes[] = {
      {"input",
       [](const std::string& f) { set_first(f + "/x.npy", 2 * first<float>(f + "/x.npy")); }},
      {"eps",
       [](const std::string& f) { replace_in(f + "/contract.json", "\"eps\": ", "\"eps\": 1"); }},
      {"expected",
       [](const std::string& f) {
         const std::string file = f + "/expected_out.npy";
         set_first(file, std::nextafter(std::nextafter(first<float>(file), 9.f), 9.f));
       }},
      {"tolerance",
       [](const std::string& f) {
         const std::string file = f + "/tolerance_out.npy";
         set_first(file, first<double>(file) * (1 + 2e-6));
       }},
      {"contract",
       [](const std::string& f) {
         replace_in(f + "/contract.json", "\"sum_depth\": ", "\"sum_depth\": 1");
       }},
      {"output",
       [](const std::string& f) {
         set_first(f + "/got_out.npy", first<float>(f + "/expected_out.npy"));
       }},
      {"verdict", [](const std::string& f) { set_first(f + "/failed_out.npy", std::int32_t{1}); }},
  };
  for (const auto& [name, change] : changes) {
    const std::string folder = dir_ + "/" + name;
    fs::copy(whole, folder);
    change(folder);
    EXPECT_EQ(verify({folder}, output), 1) << name << ": " << output;
  }
}

}  // namespace
}  // namespace qwen::testing
