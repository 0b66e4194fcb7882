// What this processor can run, and what suits it.
#include "backends/cpu/kernels/kernels.h"
#include "backends/cpu/kernels/prefetch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace qwen::cpu {

#if defined(__x86_64__)
namespace {

// Clang 14's __builtin_cpu_supports does not know these two.
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

bool has_avxvnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & bit_AVXVNNI) != 0;
}

}  // namespace
#endif

#if defined(__x86_64__)
const bool kStreamsToSecondCache = (__builtin_cpu_init(), __builtin_cpu_is("amd") != 0);
#else
const bool kStreamsToSecondCache = false;
#endif

std::vector<const Kernels*> usable_kernels() {
  std::vector<const Kernels*> usable;
#if defined(__x86_64__)
  // The compiler's check also asks whether the operating system saves the wide registers.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    usable.push_back(__builtin_cpu_supports("avx512vnni") ? &avx512_vnni_kernels()
                                                          : &avx512_kernels());
  }
  if (avx2 && has_avxvnni()) usable.push_back(&avxvnni_kernels());
  if (avx2) usable.push_back(&avx2_kernels());
#endif
  usable.push_back(&baseline_kernels());
  return usable;
}

}  // namespace qwen::cpu
