// Every op of every backend against the reference, over the table of op_cases. Differences are
// judged element by element with the bound that follows from the backend's numeric contract.
//
//   op_test [--device cpu|cuda] [GTEST_OPTION...]
//
// With the shipped defaults and with --exact. cpu: every instruction set that this processor has.
// cuda: exit code 77 where there is no GPU to use.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>

#include "backends/cpu/cpu_backend.h"
#include "backends/registry.h"
#include "core/crosscheck/placed_op.h"
#include "core/crosscheck/rounded.h"
#include "core/error.h"
#include "tests/op_cases.h"

namespace qwen::testing {
namespace {

using crosscheck::PlacedOp;
using crosscheck::ReadOp;
using crosscheck::rounded;
using crosscheck::Scratch;

constexpr int kSkipped = 77;

// The backends of a program run, each made once: a CUDA context takes longer than all cases of an
// op.
class Backends {
 public:
  explicit Backends(std::string device) : device_(std::move(device)) {
    make("ref", "ref", {});
    if (device_ == "cuda") {
      make("cuda", "cuda", {});
      make("cuda_exact", "cuda", {.exact = true});
      names_ = {"cuda", "cuda_exact"};
      return;
    }
    for (const std::string_view isa : CpuBackend::usable_isas()) {
      for (const bool exact : {false, true}) {
        const std::string name = std::string(isa) + (exact ? "_exact" : "");
        for (const int threads : {1, 2, 3, 4}) {
          make(name + (threads > 1 ? "_" + std::to_string(threads) : ""), "cpu",
               {.threads = threads, .isa = std::string(isa), .exact = exact});
        }
        names_.push_back(name);
      }
    }
  }

  const std::string& device() const { return device_; }
  // What is tested.
  const std::vector<std::string>& names() const { return names_; }
  Backend& get(const std::string& name) { return *backends_.at(name); }

 private:
  void make(const std::string& name, std::string_view kind, const BackendOptions& options) {
    backends_[name] = make_backend(kind, options);
  }

  std::string device_;
  std::vector<std::string> names_;
  std::map<std::string, std::unique_ptr<Backend>> backends_;
};

// An op in host memory. The same every time.
struct Built {
  explicit Built(const OpCase& c) {
    fixtures::Random random(0x5eed);
    op = c.make(memory, random);
  }
  GuardedMemory memory;
  Op op;
};

// Ops that move or choose numbers, or whose rounding is part of their definition (KvWrite): every
// backend has the same bits.
bool is_exact(const Op& op) {
  return std::holds_alternative<KvWrite>(op) || std::holds_alternative<Sample>(op) ||
         std::holds_alternative<Advance>(op);
}

// Prints the worst element and counts those outside the bound.
void expect_within(const Tensor& got, const Tensor& want, const std::vector<double>& bound,
                   const char* what) {
  ASSERT_EQ(static_cast<std::size_t>(got.size()), bound.size());
  std::int64_t wrong = 0;
  double worst = 0;
  std::string where;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(double{got.f32()[i]} - want.f32()[i]);
    if (error <= bound[i]) continue;  // false for not-a-number too
    const double excess = error / bound[i];
    if (wrong++ > 0 && excess <= worst) continue;
    worst = excess;
    char text[160];
    std::snprintf(text, sizeof text,
                  "element %lld: got %.9g, expected %.9g, error %.3g, bound %.3g",
                  static_cast<long long>(i), got.f32()[i], want.f32()[i], error, bound[i]);
    where = text;
  }
  EXPECT_EQ(wrong, 0) << what << " " << to_string(got) << ": " << wrong << " of " << got.size()
                      << " elements are out of bounds; the worst: " << where;
}

void expect_equal(const std::vector<Tensor>& got, const std::vector<Tensor>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (std::memcmp(got[i].data, want[i].data, want[i].bytes()) == 0) continue;
    std::size_t at = 0;
    while (got[i].data[at] == want[i].data[at]) ++at;
    const std::int64_t n = want[i].size();
    ADD_FAILURE() << "output " << i << " " << to_string(want[i])
                  << ": the bits differ from element "
                  << static_cast<std::int64_t>(at) * n / static_cast<std::int64_t>(want[i].bytes());
  }
}

class OpTest : public ::testing::TestWithParam<OpCase> {
 public:
  static inline Backends* backends = nullptr;  // main's

 protected:
  // Runs the op on fresh memory of the backend; what is outside its outputs must stay as it was.
  static ReadOp run(const std::string& name, const Built& input) {
    ReadOp done = run(name, input.op);
    EXPECT_EQ(input.memory.first_broken_guard(), -1) << name << ": a write outside host memory";
    return done;
  }

  static ReadOp run(const std::string& name, const Op& op) {
    Backend& backend = backends->get(name);
    const PlacedOp placed(backend, op);
    backend(placed.op());
    ReadOp done(placed);
    EXPECT_EQ(done.damage(op), "") << name;
    return done;
  }
};

TEST_P(OpTest, MatchesTheReference) {
  const Built input(GetParam());
  for (const std::string& name : backends->names()) {
    SCOPED_TRACE(name);
    Backend& backend = backends->get(name);
    const ReadOp computed = run(name, input);
    // With the operands rounded as the backend says that it does.
    Scratch scratch;
    const auto [op, contract] =
        rounded(input.op, backend.contract(input.op), backends->get("ref"), scratch);
    const ReadOp reference = run("ref", op);
    const std::vector<Tensor>& exact = reference.outputs();
    if (is_exact(input.op)) {  // whole tensors, poison included, bit for bit
      expect_equal(computed.outputs(), exact);
      continue;
    }
    const Tensor lse = exact.size() > 1 ? exact[1] : Tensor();
    const Tolerance bound = tolerance(op, contract, exact[0], lse);
    expect_within(computed.outputs()[0], exact[0], bound.out, "out");
    if (exact.size() > 1) expect_within(computed.outputs()[1], lse, bound.lse, "lse");
  }
}

// A second run, and on the CPU any number of threads.
TEST_P(OpTest, GivesTheSameBitsAgain) {
  const Built input(GetParam());
  for (const std::string& name : backends->names()) {
    const ReadOp one = run(name, input);
    const std::vector<std::string> others =
        backends->device() == "cuda" ? std::vector{name}
                                     : std::vector{name + "_2", name + "_3", name + "_4"};
    for (const std::string& other : others) {
      SCOPED_TRACE(other);
      expect_equal(run(other, input).outputs(), one.outputs());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, OpTest, ::testing::ValuesIn(op_cases()),
                         [](const auto& test) { return test.param.name; });

// Takes --device out of the arguments; "cpu" without.
std::string take_device(int& argc, char** argv) {
  std::string device = "cpu";
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--device" && i + 1 < argc) {
      device = argv[++i];
    } else if (arg.starts_with("--device=")) {
      device = arg.substr(std::strlen("--device="));
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  argv[argc] = nullptr;
  return device;
}

int run_tests(int argc, char** argv) {
  const std::string device = take_device(argc, argv);
  if (device != "cpu" && device != "cuda") {
    std::fprintf(stderr, "op_test: --device %s: expected cpu or cuda\n", device.c_str());
    return 2;
  }
  ::testing::InitGoogleTest(&argc, argv);
  if (GTEST_FLAG_GET(list_tests)) return RUN_ALL_TESTS();
  if (device == "cuda") {
    const Device cuda = devices().front();
    if (!cuda.usable) {
      std::printf("op_test: skipped: cuda cannot be used here: %s\n", cuda.why_not.c_str());
      return kSkipped;
    }
  }
  Backends backends(device);
  OpTest::backends = &backends;
  for (const std::string& name : backends.names()) {
    std::printf("op_test: %s on %s\n", name.c_str(), backends.get(name).description().c_str());
  }
  return RUN_ALL_TESTS();
}

}  // namespace

void PrintTo(const OpCase& c, std::ostream* out) { *out << c.name; }

}  // namespace qwen::testing

int main(int argc, char** argv) {
  try {
    return qwen::testing::run_tests(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "op_test: %s\n", error.what());
    return 1;
  }
}
