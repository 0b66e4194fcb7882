#include "backends/cuda/cuda_backend.h"

#include <algorithm>

#include "backends/cuda/attention.h"
#include "backends/cuda/check.h"
#include "backends/cuda/cublas.h"
#include "backends/cuda/device.h"
#include "backends/cuda/fuse/fuse.h"
#include "backends/cuda/fuse/run_fused.h"
#include "backends/cuda/gemm.h"
#include "backends/cuda/graph/graph_program.h"
#include "core/error.h"

namespace qwen {
namespace {

// Results under way at once.
constexpr std::size_t kReads = 16;

std::string require_device() {
  const cuda::DeviceInfo device = cuda::probe_device();
  if (device.usable) return device.name;
  throw Error({.exit = Exit::kModel,
               .code = "no_cuda",
               .message = "--device cuda: " + device.why_not,
               .hint = "--device cpu runs on this machine"});
}

int attribute(cudaDeviceAttr which) {
  int value = 0;
  cuda::check(cudaDeviceGetAttribute(&value, which, 0));
  return value;
}

}  // namespace

CudaBackend::CudaBackend(const CudaOptions& options, bool exact)
    : options_(options),
      device_name_(require_device()),
      allocator_(options.fail_allocation),
      weights_(allocator_, stream_) {
  launch_.stream = stream_;
  launch_.n_sms = attribute(cudaDevAttrMultiProcessorCount);
  launch_.max_shared_bytes =
      static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  launch_.exact = exact;
  // Hopper brought the launches that overlap, and wider steps of the tensor cores.
  const bool hopper = attribute(cudaDevAttrComputeCapabilityMajor) >= 9;
  launch_.overlap = hopper && !options.sync;
  launch_.mma_terms = hopper ? 16 : 8;
  counters_ = allocator_.device(cuda::kCounters * sizeof(unsigned));
  cuda::check(cudaMemsetAsync(counters_.get(), 0, cuda::kCounters * sizeof(unsigned), stream_));
  launch_.counters = reinterpret_cast<unsigned*>(counters_.get());
  for (std::size_t i = 0; i < kReads; ++i) reads_.push_back(std::make_unique<cuda::Event>());
}

CudaBackend::~CudaBackend() { cudaStreamSynchronize(stream_); }

std::string CudaBackend::description() const { return device_name_; }

Contract CudaBackend::contract(const Op& op) const {
  if (const auto* norm = std::get_if<RmsNorm>(&op)) {
    // A thread's elements, the lanes, the warps. (rms_norm.cu)
    return {.sum_depth = (norm->x.cols() + 255) / 256 + 5 + 8};
  }
  if (const auto* gemm = std::get_if<Gemm>(&op)) {
    return cuda::uses_gemv(*gemm, launch_) ? cuda::gemv_contract(*gemm, launch_)
                                           : cuda::multiply_contract(*gemm, launch_);
  }
  if (const auto* attention = std::get_if<Attention>(&op)) {
    return cuda::attention_contract(*attention, launch_);
  }
  return {};
}

Buffer CudaBackend::allocate(std::size_t bytes) { return allocator_.device(bytes); }
Buffer CudaBackend::allocate_host(std::size_t bytes) { return allocator_.pinned(bytes); }

void CudaBackend::write(const Tensor& dst, const void* src) {
  if (dst.bytes() == 0) return;
  cuda::check(cudaMemcpyAsync(dst.data, src, dst.bytes(), cudaMemcpyHostToDevice, stream_));
}

void CudaBackend::read(void* dst, const Tensor& src) {
  if (src.bytes() == 0) return;
  cuda::check(cudaMemcpyAsync(dst, src.data, src.bytes(), cudaMemcpyDeviceToHost, stream_));
  cuda::check(cudaStreamSynchronize(stream_));
}

std::uint64_t CudaBackend::read_later(void* dst, const Tensor& src) {
  cuda::check(cudaMemcpyAsync(dst, src.data, src.bytes(), cudaMemcpyDeviceToHost, stream_));
  cuda::check(cudaEventRecord(*reads_[n_reads_ % kReads], stream_));
  return n_reads_++;
}

void CudaBackend::wait(std::uint64_t read) {
  // If its event has been used again since, the later read's end implies this one's.
  cuda::check(cudaEventSynchronize(*reads_[read % kReads]));
}

Tensor CudaBackend::place_weight(const Tensor& host) { return weights_.place(host); }

void CudaBackend::reserve_workspace(std::size_t bytes) {
  if (bytes <= workspace_bytes_) return;
  workspaces_.push_back(allocator_.device(bytes));
  workspace_bytes_ = bytes;
  launch_.workspace = workspaces_.back().get();
}

void CudaBackend::need_cublas() {
  if (cublas_ != nullptr) return;
  cublas_ = std::make_unique<cuda::Cublas>(stream_, allocator_);
  launch_.cublas = cublas_.get();
}

void CudaBackend::reserve(const Plan& plan) {
  std::size_t bytes = 0;
  for (const Node& node : plan) {
    bytes = std::max(bytes, cuda::workspace_bytes(node.op, launch_.n_sms, launch_.exact));
    const auto* gemm = std::get_if<Gemm>(&node.op);
    if (gemm != nullptr && !cuda::uses_gemv(*gemm, launch_)) need_cublas();
  }
  reserve_workspace(bytes);
}

void CudaBackend::execute_unobserved(const Plan& plan) {
  if (options_.level != CudaOptions::Level::kFused || options_.sync) return replay(plan);
  reserve(plan);
  cuda::run_fused(plan, launch_, [this](const Node& node) { (*this)(node.op, node.tap); });
}

std::vector<FusedRun> CudaBackend::fused_runs(const Plan& plan) const {
  std::vector<FusedRun> runs;
  if (options_.level != CudaOptions::Level::kFused || options_.sync) return runs;
  for (const cuda::Group& group : cuda::fuse(plan)) {
    if (group.count > 1) runs.push_back({group.first, group.count, cuda::elided(plan, group)});
  }
  return runs;
}

std::unique_ptr<Program> CudaBackend::compile(Plan plan) {
  if (options_.level == CudaOptions::Level::kEager || options_.sync) {
    return Backend::compile(std::move(plan));
  }
  reserve(plan);
  // An observer would read while the launches are only captured.
  const ObservingScope unobserved(*this, nullptr);
  return std::make_unique<cuda::GraphProgram>(stream_, [&] { execute(plan); });
}

template <class T>
void CudaBackend::queue(const T& op) {
  // reserve() has seen to it for the steps of a session; an op run by itself may need more.
  reserve_workspace(cuda::workspace_bytes(Op(op), launch_.n_sms, launch_.exact));
  if constexpr (std::is_same_v<T, Gemm>) {
    if (!cuda::uses_gemv(op, launch_)) need_cublas();
  }
  cuda::launch(op, launch_);
  if (options_.sync) cuda::check(cudaStreamSynchronize(stream_));
}

void CudaBackend::run(const Embed& op) { queue(op); }
void CudaBackend::run(const RmsNorm& op) { queue(op); }
void CudaBackend::run(const Gemm& op) { queue(op); }
void CudaBackend::run(const AddBias& op) { queue(op); }
void CudaBackend::run(const Rope& op) { queue(op); }
void CudaBackend::run(const KvWrite& op) { queue(op); }
void CudaBackend::run(const Attention& op) { queue(op); }
void CudaBackend::run(const SiluMul& op) { queue(op); }
void CudaBackend::run(const Add& op) { queue(op); }
void CudaBackend::run(const TakeRows& op) { queue(op); }
void CudaBackend::run(const Sample& op) { queue(op); }
void CudaBackend::run(const Advance& op) { queue(op); }

}  // namespace qwen
