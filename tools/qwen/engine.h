// A model on a device, ready to run.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "backends/host.h"
#include "backends/registry.h"
#include "core/model.h"
#include "core/session.h"
#include "tools/qwen/opened_model.h"
#include "tools/qwen/options.h"

namespace qwen::cli {

// What the largest step of a session holds.
struct StepLimits {
  std::int64_t tokens = 1;
  std::int64_t rows = 1;    // of logits
  std::int64_t n_seqs = 1;  // of the session
};

// A device as the options choose it, ready for ops.
struct OpenedDevice {
  Device device;
  int threads = 0;
  std::unique_ptr<Backend> backend;

  // {"kind","name","threads","runs_on"}
  Json description() const;
};

// With `auto` a line on standard error says why it is not the GPU. Throws Error.
OpenedDevice open_device(const ModelOptions& options, Console& console);

class Engine {
 public:
  // Opens the device and places the weights there. `model` must outlive the engine. Throws Error.
  Engine(OpenedModel& model, const ModelOptions& options, Console& console);

  Backend& backend() { return *opened_device_.backend; }
  const Model& model() const { return *model_; }
  const ModelShape& shape() const { return model_->shape(); }
  const Device& device() const { return opened_device_.device; }
  int threads() const { return opened_device_.threads; }
  DType kv_dtype() const { return kv_dtype_; }

  // The context that -c asks for and memory holds; says so when it is less than the model was
  // trained for without having been asked. `needed` tokens are enough without -c (0: the trained
  // length). Throws Error.
  std::int64_t choose_context(const StepLimits& limits, std::int64_t needed = 0) const;

  // Throws a usage error for an id of --ids that is not in the vocabulary.
  void check_ids(std::span<const std::int32_t> ids) const;

  // With a `ctx` of choose_context().
  std::unique_ptr<Session> make_session(std::int64_t ctx, const StepLimits& limits);

  Json description() const { return opened_device_.description(); }

 private:
  void check_gpu_layers() const;

  OpenedModel& opened_;
  const ModelOptions& options_;
  Console& console_;
  OpenedDevice opened_device_;
  DType kv_dtype_ = DType::kF32;
  std::unique_ptr<Model> model_;
};

}  // namespace qwen::cli
