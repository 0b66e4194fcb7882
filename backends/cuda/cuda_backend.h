// The CUDA backend: FP32 activations, sums and softmax, weights in their file's format, on one
// NVIDIA GPU. Ops are queued on a stream in order.
#pragma once

#include <string>
#include <vector>

#include "backends/cuda/launch.h"
#include "backends/cuda/memory.h"
#include "backends/cuda/options.h"
#include "backends/cuda/weights.h"
#include "core/backend.h"

namespace qwen {

class CudaBackend : public Backend {
 public:
  // On the first device. Throws Error (Exit::kModel) if there is none that can be used.
  // `exact`: FP32 operands in every matrix product.
  explicit CudaBackend(const CudaOptions& options, bool exact = false);
  ~CudaBackend() override;

  std::string_view name() const override { return "cuda"; }
  std::string description() const override;
  Contract contract(const Op& op) const override;

  Buffer allocate(std::size_t bytes) override;
  Buffer allocate_host(std::size_t bytes) override;
  void reserve(const Plan& plan) override;
  void write(const Tensor& dst, const void* src) override;
  void read(void* dst, const Tensor& src) override;
  std::uint64_t read_later(void* dst, const Tensor& src) override;
  void wait(std::uint64_t read) override;
  int queue_depth() const override { return 2; }
  // A product of 2,048 tokens fills the multiprocessors several times over; the launches of a step
  // take the host 1.5 ms, which 512 tokens would not hide.
  std::int64_t step_tokens() const override { return 2048; }
  Tensor place_weight(const Tensor& host) override;
  std::vector<FusedRun> fused_runs(const Plan& plan) const override;
  std::unique_ptr<Program> compile(Plan plan) override;

  // Copies a placed weight back as it lay in the file.
  void read_weight(void* dst, const Tensor& weight) override { weights_.read(dst, weight); }
  const cuda::Allocator& allocator() const { return allocator_; }

 protected:
  void execute_unobserved(const Plan& plan) override;

 private:
  // Launches `op`, with what it needs at hand.
  template <class T>
  void queue(const T& op);
  void need_cublas();
  void reserve_workspace(std::size_t bytes);

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

  CudaOptions options_;
  std::string device_name_;
  cuda::Allocator allocator_;
  cuda::Stream stream_;
  cuda::WeightStore weights_;
  cuda::Launch launch_;
  // The last one is in use; graphs that were captured before it was needed still use the others.
  std::vector<Buffer> workspaces_;
  std::size_t workspace_bytes_ = 0;
  Buffer counters_;
  std::unique_ptr<cuda::Cublas> cublas_;
  std::vector<std::unique_ptr<cuda::Event>> reads_;  // a ring
  std::uint64_t n_reads_ = 0;
};

}  // namespace qwen
