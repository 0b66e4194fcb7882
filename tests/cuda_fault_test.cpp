// Faults of the CUDA backend. A failing allocation, at each site in turn: a typed error, and
// nothing is left behind. A kernel that reads what it must not: the error names the op.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <optional>

#include "backends/cuda/cuda_backend.h"
#include "backends/cuda/device.h"
#include "core/error.h"
#include "tests/model_runs.h"

namespace qwen::testing {
namespace {

// A backend, a model, a session, a prompt of more tokens than a GEMV takes, and three new tokens.
// Each step allocates what it needs, so that all the backend's sites come up. The copy of the
// allocator counts on when the backend is gone.
void run_model(const CudaOptions& options, std::optional<cuda::Allocator>& counter) {
  CudaBackend backend(options);
  counter = backend.allocator();
  const PlacedModel placed(tiny_models()[2], backend);
  Session session(*placed.model, backend,
                  {.ctx = 100, .max_step_tokens = 64, .kv_dtype = DType::kF16});
  session.prefill(0, random_text(30, 1));
  session.queue_sample();
  for (int i = 0; i < 2; ++i) session.queue_decode();
  for (int i = 0; i < 3; ++i) session.take();
}

TEST(CudaFaults, EveryFailingAllocationIsATypedErrorAndNoLeak) {
  const cuda::DeviceInfo device = cuda::probe_device();
  if (!device.usable) GTEST_SKIP() << "cuda cannot be used here: " << device.why_not;
  for (const CudaOptions::Level level :
       {CudaOptions::Level::kEager, CudaOptions::Level::kGraph, CudaOptions::Level::kFused}) {
    SCOPED_TRACE("level " + std::to_string(static_cast<int>(level)));
    bool done = false;
    int n = 0;
    for (; !done; ++n) {
      ASSERT_LT(n, 500) << "allocations without end";
      SCOPED_TRACE("allocation " + std::to_string(n) + " fails");
      std::optional<cuda::Allocator> counter;
      try {
        run_model({.level = level, .fail_allocation = n}, counter);
        done = true;
      } catch (const Error& error) {
        EXPECT_EQ(error.info().exit, Exit::kOutOfMemory) << error.what();
        EXPECT_NE(error.info().hint, "") << error.what();
      }
      EXPECT_EQ(counter ? counter->alive() : 0, 0) << "device or pinned memory is left";
    }
    EXPECT_GT(n, 8) << "the backend allocates less than it must";
    std::printf("level %d: %d allocations failed in turn\n", static_cast<int>(level), n - 1);
    // No harm is left either.
    std::optional<cuda::Allocator> counter;
    EXPECT_NO_THROW(run_model({.level = level}, counter));
  }
}

// Reads far outside its table, which the device reports only when the kernel has run.
void read_outside() {
  CudaBackend backend({.sync = true});
  const Buffer memory = backend.allocate(4096);
  const std::int32_t far = 1 << 30;
  const Tensor ids(memory.get(), DType::kI32, {1});
  backend.write(ids, &far);
  const Tensor table(memory.get() + 1024, DType::kF32, {2, 64});
  const Tensor out(memory.get() + 2048, DType::kF32, {1, 64});
  try {
    backend(Embed{out, table, ids}, {"embed", 7});
    std::fprintf(stderr, "nothing failed\n");
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  std::_Exit(0);  // the device context is lost
}

TEST(CudaFaultsDeathTest, AFaultInAKernelNamesTheOpWithSync) {
  const cuda::DeviceInfo device = cuda::probe_device();
  if (!device.usable) GTEST_SKIP() << "cuda cannot be used here: " << device.why_not;
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a process of its own, not a fork of this one
  EXPECT_EXIT(read_outside(), ::testing::ExitedWithCode(0), "in Embed embed of layer 7");
}

}  // namespace
}  // namespace qwen::testing
