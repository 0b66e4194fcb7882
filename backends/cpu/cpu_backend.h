// The CPU backend: FP32 arithmetic, or 8-bit activations in products of quantised weights; run-time
// choice of instruction set; threads over output rows or (sequence, head) pairs, never over a sum:
// any number of threads gives the same bits. Weights stay in their file's format; those of products
// with 8-bit activations are laid out anew, in panels (kernels/panels.h), and floats are copied to
// huge pages.
#pragma once

#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "backends/cpu/kernels/kernels.h"
#include "backends/cpu/memory.h"
#include "backends/cpu/reference/reference.h"
#include "backends/cpu/thread_pool.h"

namespace qwen {

namespace cpu {
struct Int8Format;
}  // namespace cpu

// How products with quantised weights take their activations.
enum class Activations {
  kF32,
  kInt8,  // rounded (core/int8.h), where the instruction set has fast products of them
};

class CpuBackend : public ReferenceBackend {
 public:
  // `threads` >= 1. `isa` is one of usable_isas(), or "" for the fastest. Throws Error
  // (Exit::kModel) if this processor does not have it.
  CpuBackend(int threads, std::string_view isa, Activations activations = Activations::kF32);

  std::string_view name() const override { return "cpu"; }
  std::string description() const override;
  Contract contract(const Op& op) const override;
  // Products of the same x, where all are taken in FP32 or all in integers. Their bits are those
  // that they have one by one.
  std::vector<FusedRun> fused_runs(const Plan& plan) const override;
  Tensor place_weight(const Tensor& host) override;
  Tensor place_embedding(const Tensor& host) override { return host; }
  void drop_weight(const Tensor& weight) override;
  void read_weight(void* dst, const Tensor& weight) override;
  int threads() const { return pool_.threads(); }
  void parallel_for(std::int64_t n, std::int64_t grain,
                    const std::function<void(std::int64_t, std::int64_t)>& f) override;

  // Instruction sets that this processor can run, the fastest first.
  static std::vector<std::string_view> usable_isas();

 protected:
  using ReferenceBackend::run;  // TakeRows, Advance: nothing to gain
  void run(const Embed& op) override;
  void run(const RmsNorm& op) override;
  void run(const Gemm& op) override;
  void run(const AddBias& op) override;
  void run(const Rope& op) override;
  void run(const KvWrite& op) override;
  void run(const Attention& op) override;
  void run(const SiluMul& op) override;
  void run(const Add& op) override;
  void run(const Sample& op) override;
  void execute_unobserved(const Plan& plan) override;

 private:
  struct AttentionBlock;
  struct Int8Product;
  // Of the same x: one job.
  using Products = std::span<const Gemm>;

  static bool uses_panels(const Gemm& op);
  // Whether `node` is a product that can be taken at the same time as those of `run`.
  bool goes_with(std::span<const Node> run, const Node& node) const;
  void multiply(Products ops);
  // Null: products with it are taken in FP32.
  const cpu::Int8Format* int8_format(const Tensor& weight) const;
  static Contract int8_contract(const Gemm& op, const cpu::Int8Format& format);
  // Whether place_weight() laid it out in panels. Ops take other weights, too, as they lie in the
  // file.
  bool in_panels(const Tensor& weight) const;
  // As it lies in the file.
  void read_panel_row(const Tensor& weight, std::int64_t row, std::byte* to) const;
  void int8_gemm(Products ops);
  // Rounds their x, once for all that take it alike.
  std::vector<Int8Product> rounded(Products ops);
  // Products of many tokens, which use a panel many times.
  void int8_tiles(const std::vector<Int8Product>& products);
  void gemv(Products ops);
  // The weights' rows, in chunks for products that stream them.
  std::vector<cpu::ThreadPool::Range> streamed(Products ops) const;
  void gemm(Products ops);
  // The first of the largest that is a number; 0 if there is none above -infinity.
  std::int32_t likeliest(std::span<const float> logits);
  void attend(const Attention& op, const AttentionBlock& block, std::int64_t kv_head,
              float* scratch);
  // Makes the scratch of every thread at least `floats` long, before a job that uses it: a job must
  // not throw. It grows to what the largest step needs and stays.
  void reserve_scratch(std::size_t floats);
  float* scratch(int thread) { return reinterpret_cast<float*>(scratch_[thread].memory.get()); }
  // One piece that all threads share.
  float* shared_scratch(std::size_t floats);

  const cpu::Kernels* kernels_;
  Activations activations_;
  cpu::ThreadPool pool_;
  struct Scratch {
    Buffer memory;
    std::size_t floats = 0;
  };
  void grow(Scratch& s, std::size_t floats);

  std::vector<Scratch> scratch_;  // one per thread
  Scratch shared_;
  cpu::HugePages huge_pages_;
  // Of place_weight(), by where they lie.
  std::unordered_map<const std::byte*, std::shared_ptr<std::byte>> placed_;
};

}  // namespace qwen
