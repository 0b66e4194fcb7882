// The oracle: every op as its definition reads. Scalar loops over FP32 data, FP64 sums, no BLAS, no
// SIMD, no threads. Slow on purpose; every other path is checked against this one, and this one
// against another engine's numbers (tests/golden).
#pragma once

#include "core/backend.h"

namespace qwen {

class ReferenceBackend : public Backend {
 public:
  std::string_view name() const override { return "ref"; }
  std::string description() const override { return "scalar reference"; }
  Contract contract(const Op&) const override { return {}; }  // every sum in FP64

  // Host memory, aligned to 64 bytes.
  Buffer allocate(std::size_t bytes) override;
  void write(const Tensor& dst, const void* src) override;
  void read(void* dst, const Tensor& src) override;
  Tensor place_weight(const Tensor& host) override { return host; }

 protected:
  void run(const Embed& op) override;
  void run(const RmsNorm& op) override;
  void run(const Gemm& op) override;
  void run(const AddBias& op) override;
  void run(const Rope& op) override;
  void run(const KvWrite& op) override;
  void run(const Attention& op) override;
  void run(const SiluMul& op) override;
  void run(const Add& op) override;
  void run(const TakeRows& op) override;
  void run(const Sample& op) override;
  void run(const Advance& op) override;
};

}  // namespace qwen
