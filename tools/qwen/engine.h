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

class Engine {
 public:
  // Chooses the device and places the weights there. With `auto` a line on standard error says why
  // it is not the GPU. `model` must outlive the engine. Throws Error.
  Engine(OpenedModel& model, const ModelOptions& options, Console& console);

  Backend& backend() { return *backend_; }
  const Model& model() const { return *model_; }
  const ModelShape& shape() const { return model_->shape(); }
  const Device& device() const { return device_; }
  int threads() const { return threads_; }
  DType kv_dtype() const { return kv_dtype_; }

  // The context that -c asks for and memory holds; says so when it is less than the model was
  // trained for without having been asked. `needed` tokens are enough without -c (0: the trained
  // length). Throws Error.
  std::int64_t choose_context(const StepLimits& limits, std::int64_t needed = 0) const;

  // Throws a usage error for an id of --ids that is not in the vocabulary.
  void check_ids(std::span<const std::int32_t> ids) const;

  // With a `ctx` of choose_context().
  std::unique_ptr<Session> make_session(std::int64_t ctx, const StepLimits& limits);

  // {"kind","name","threads"}
  Json description() const;

 private:
  void choose_device();
  void make_device_backend();
  void check_gpu_layers() const;

  OpenedModel& opened_;
  const ModelOptions& options_;
  Console& console_;
  Device device_;
  int threads_ = 0;
  DType kv_dtype_ = DType::kF32;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
};

}  // namespace qwen::cli
