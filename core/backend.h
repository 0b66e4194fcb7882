// Backend: something that runs ops. Observer: something that watches them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/contract.h"
#include "core/ops.h"

namespace qwen {

// Memory of a backend, freed with the object. Aligned to 64 bytes at least; contents undefined.
using Buffer = std::unique_ptr<std::byte, std::function<void(std::byte*)>>;

// Told of every op that a backend runs. The tensors of the op are in the backend's memory
// (Backend::read copies them out). None but the cross-check's own may change what an op reads.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void before(const Op& /*op*/, const Tap& /*tap*/) {}
  virtual void after(const Op& /*op*/, const Tap& /*tap*/) {}
};

// A plan made ready to be run again and again, on the memory that its tensors point to.
class Program {
 public:
  virtual ~Program() = default;
  virtual void run() = 0;
};

// Consecutive nodes of a plan that a backend runs as one.
struct FusedRun {
  std::size_t first = 0;
  std::size_t count = 1;
  std::vector<Tensor> elided = {};  // written by its nodes, and undefined after the run
  bool same_bits = false;           // leaves the very bits that its nodes leave one by one
};

// One way to run ops. Not thread-safe: one thread drives a backend; inside an op the backend may
// use as many as it likes. When operator() returns, the op has run or is queued in order; read()
// waits.
class Backend {
 public:
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  virtual ~Backend() = default;

  // "ref", "cpu", ...
  virtual std::string_view name() const = 0;
  // What it runs on, for people: "AMD EPYC (avx512, 2 threads)".
  virtual std::string description() const = 0;

  // How this backend rounds in `op`.
  virtual Contract contract(const Op& op) const = 0;

  // The only way to run an op: validates it, records it if a tape is set (and then runs nothing),
  // else tells the observer, runs it, and tells the observer again. Throws Error if it is invalid.
  void operator()(const Op& op, Tap tap = {});
  // Runs the nodes of a recorded plan in order, each as operator() does.
  void replay(const Plan& plan);
  // Runs a plan in the best form that the backend has for a single run of it; with an observer,
  // as replay() does.
  void execute(const Plan& plan);
  // What execute(), unobserved, runs as one, in order; nodes in none of them are run one by one.
  virtual std::vector<FusedRun> fused_runs(const Plan& /*plan*/) const { return {}; }
  // Makes `plan` ready for many runs. Nothing is recorded or observed when it runs. The program
  // must not outlive the backend. Throws Error.
  virtual std::unique_ptr<Program> compile(Plan plan);

  // From now on ops are appended to `tape` instead of being run; null ends that. Not owned. Returns
  // the tape that was set before.
  Plan* record(Plan* tape) { return std::exchange(tape_, tape); }
  // From now on `observer` is told of every op; null ends that. Not owned. Returns the observer
  // that was set before.
  Observer* observe(Observer* observer) { return std::exchange(observer_, observer); }
  bool observed() const { return observer_ != nullptr; }

  // Memory for tensors. Throws Error (Exit::kOutOfMemory).
  virtual Buffer allocate(std::size_t bytes) = 0;
  // Host memory that read_later() writes to. Throws Error (Exit::kOutOfMemory).
  virtual Buffer allocate_host(std::size_t bytes) { return allocate(bytes); }
  // Makes room for whatever the ops of `plan`, and the same ops with fewer rows, need besides their
  // tensors, so that nothing is allocated while steps run. Throws Error (Exit::kOutOfMemory).
  virtual void reserve(const Plan& /*plan*/) {}
  // Copies between host memory and the backend's, in order with the ops.
  virtual void write(const Tensor& dst, const void* src) = 0;
  virtual void read(void* dst, const Tensor& src) = 0;
  // Copies to memory of allocate_host(), in order with the ops, and need not wait: the bytes are
  // there when wait() was called with what this returned.
  virtual std::uint64_t read_later(void* dst, const Tensor& src) {
    read(dst, src);
    return 0;
  }
  virtual void wait(std::uint64_t /*read*/) {}
  // How many steps are best queued ahead of the one whose result is waited for. 0: an op has run
  // when operator() returns, and what is queued in vain costs its whole time.
  virtual int queue_depth() const { return 0; }
  // Rows of a step that make good use of it: a longer prefill is cut into such steps. Always the
  // same for a backend, since steps of other sizes would round in another way.
  virtual std::int64_t step_tokens() const { return 512; }
  // Calls f(begin, end) for ranges that cover [0, n), of about `grain` indices each, and returns
  // when all are done: on the threads that the ops of a backend in host memory use. What a range
  // computes must not depend on how [0, n) is cut. f must not run ops. If it throws, one of its
  // exceptions is thrown on, after all that has begun has ended.
  virtual void parallel_for(std::int64_t n, std::int64_t /*grain*/,
                            const std::function<void(std::int64_t, std::int64_t)>& f) {
    if (n > 0) f(0, n);
  }
  // Makes a weight that lies in host memory usable in ops, as a whole: slices of what this returns
  // need not be. The host memory must outlive the backend's use of it: a backend may return the
  // same view. Throws Error (Exit::kOutOfMemory).
  virtual Tensor place_weight(const Tensor& host) = 0;
  // The same for what is used in Embed alone.
  virtual Tensor place_embedding(const Tensor& host) { return place_weight(host); }
  // Ends the use of what they returned. Without it, the weight stays until the backend ends.
  virtual void drop_weight(const Tensor& /*weight*/) {}
  // Copies what they returned, or any other tensor, to host memory in the layout that the file has.
  // Waits.
  virtual void read_weight(void* dst, const Tensor& weight) { read(dst, weight); }

 protected:
  // Of the op that is being run.
  const Tap& running() const { return running_; }

  virtual void execute_unobserved(const Plan& plan) { replay(plan); }

 private:
  // One line per op, so that a search finds every implementation and a missing one does not
  // compile.
  virtual void run(const Embed& op) = 0;
  virtual void run(const RmsNorm& op) = 0;
  virtual void run(const Gemm& op) = 0;
  virtual void run(const AddBias& op) = 0;
  virtual void run(const Rope& op) = 0;
  virtual void run(const KvWrite& op) = 0;
  virtual void run(const Attention& op) = 0;
  virtual void run(const SiluMul& op) = 0;
  virtual void run(const Add& op) = 0;
  virtual void run(const TakeRows& op) = 0;
  virtual void run(const Sample& op) = 0;
  virtual void run(const Advance& op) = 0;

  Tap running_;
  Plan* tape_ = nullptr;
  Observer* observer_ = nullptr;
};

// Records or observes (or, with null, does not observe) for a scope, and puts back what was set
// before, whatever happens within.
class RecordingScope {
 public:
  RecordingScope(Backend& backend, Plan& tape)
      : backend_(backend), before_(backend.record(&tape)) {}
  RecordingScope(const RecordingScope&) = delete;
  RecordingScope& operator=(const RecordingScope&) = delete;
  ~RecordingScope() { backend_.record(before_); }

 private:
  Backend& backend_;
  Plan* before_;
};

class ObservingScope {
 public:
  ObservingScope(Backend& backend, Observer* observer)
      : backend_(backend), before_(backend.observe(observer)) {}
  ObservingScope(const ObservingScope&) = delete;
  ObservingScope& operator=(const ObservingScope&) = delete;
  ~ObservingScope() { backend_.observe(before_); }

 private:
  Backend& backend_;
  Observer* before_;
};

}  // namespace qwen
