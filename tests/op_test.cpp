// Every op of every backend against the reference, over the table of op_cases. Differences are
// judged element by element with the bound that follows from the backend's numeric contract.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"
#include "tests/op_cases.h"

namespace qwen::testing {
namespace {

struct OpTestParam {
  std::string isa;
  OpCase op_case;
};

// An op and its memory. Built anew from the same seed for every run.
struct Built {
  GuardedMemory memory;
  Op op;
};

std::unique_ptr<Built> build(const OpCase& c) {
  auto built = std::make_unique<Built>();
  fixtures::Random random(0x5eed);
  built->op = c.make(built->memory, random);
  return built;
}

std::vector<Tensor> outputs(Op& op) {
  std::vector<Tensor> tensors;
  for (const Operand& o : operands(op)) {
    if (o.access != Access::kRead) tensors.push_back(*o.tensor);
  }
  return tensors;
}

// Prints the worst element and counts those outside the bound.
void expect_within(const Tensor& got, const Tensor& want, const std::vector<double>& bound,
                   const char* what) {
  ASSERT_EQ(static_cast<std::size_t>(got.size()), bound.size());
  std::int64_t wrong = 0;
  std::string first;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(double{got.f32()[i]} - want.f32()[i]);
    if (error <= bound[i]) continue;  // false for not-a-number too
    if (wrong++ == 0) {
      first = "element " + std::to_string(i) + ": got " + std::to_string(got.f32()[i]) +
              ", expected " + std::to_string(want.f32()[i]) + ", error " + std::to_string(error) +
              ", bound " + std::to_string(bound[i]);
    }
  }
  EXPECT_EQ(wrong, 0) << what << ": " << wrong << " of " << got.size() << " elements; " << first;
}

class OpTest : public ::testing::TestWithParam<OpTestParam> {};

TEST_P(OpTest, MatchesTheReference) {
  const auto input = build(GetParam().op_case);
  const auto want = build(GetParam().op_case);
  const auto got = build(GetParam().op_case);
  ReferenceBackend reference;
  CpuBackend backend(1, GetParam().isa);
  reference(want->op);
  backend(got->op);
  ASSERT_EQ(want->memory.first_broken_guard(), -1) << "the reference wrote outside a tensor";
  ASSERT_EQ(got->memory.first_broken_guard(), -1) << "a write outside a tensor";

  const std::vector<Tensor> exact = outputs(want->op);
  const std::vector<Tensor> computed = outputs(got->op);
  if (std::holds_alternative<KvWrite>(
          input->op)) {  // the whole cache, poison included, bit for bit
    for (std::size_t i = 0; i < exact.size(); ++i) {
      EXPECT_EQ(std::memcmp(computed[i].data, exact[i].data, exact[i].bytes()), 0) << "cache " << i;
    }
    return;
  }
  const Tensor lse = exact.size() > 1 ? exact[1] : Tensor();
  const Tolerance bound = tolerance(input->op, backend.contract(input->op), exact[0], lse);
  expect_within(computed[0], exact[0], bound.out, "out");
  if (exact.size() > 1) expect_within(computed[1], lse, bound.lse, "lse");
}

TEST_P(OpTest, SameBitsForAnyNumberOfThreads) {
  const auto one = build(GetParam().op_case);
  CpuBackend(1, GetParam().isa)(one->op);
  for (const int threads : {2, 3}) {
    const auto many = build(GetParam().op_case);
    CpuBackend(threads, GetParam().isa)(many->op);
    const std::vector<Tensor> a = outputs(one->op);
    const std::vector<Tensor> b = outputs(many->op);
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(std::memcmp(a[i].data, b[i].data, a[i].bytes()), 0)
          << threads << " threads, output " << i;
    }
  }
}

std::vector<OpTestParam> params() {
  std::vector<OpTestParam> all;
  for (const std::string_view isa : CpuBackend::usable_isas()) {
    for (const OpCase& c : op_cases()) all.push_back({std::string(isa), c});
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Cpu, OpTest, ::testing::ValuesIn(params()), [](const auto& test) {
  return test.param.isa + "_" + test.param.op_case.name;
});

}  // namespace
}  // namespace qwen::testing
