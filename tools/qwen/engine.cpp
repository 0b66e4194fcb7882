#include "tools/qwen/engine.h"

#include <algorithm>

#include "core/error.h"
#include "tools/qwen/format.h"
#include "tools/qwen/memory.h"
#include "tools/qwen/progress.h"

namespace qwen::cli {
namespace {

// Of GPU memory, besides the tensors: cuBLAS' workspace, captured graphs, operands rounded to F16.
// An estimate on the safe side, not measured.
constexpr std::uint64_t kCudaBytes = std::uint64_t{512} << 20;

CudaOptions::Level cuda_level(const std::string& name) {
  if (name == "eager") return CudaOptions::Level::kEager;
  return name == "graph" ? CudaOptions::Level::kGraph : CudaOptions::Level::kFused;
}

Device choose_device(const ModelOptions& options, Console& console) {
  const std::vector<Device> all = devices();
  std::string kind = options.device.value;
  if (options.gpu_layers.value == 0) {
    if (kind == "cuda") usage_error("--device cuda and -ngl 0 exclude each other");
    if (kind == "auto") kind = "cpu";
  }
  const auto chosen = std::find_if(all.begin(), all.end(), [&](const Device& d) {
    return kind == "auto" ? d.usable : d.kind == kind;
  });
  if (chosen == all.end()) {
    throw Error({.exit = Exit::kModel,
                 .code = "no_device",
                 .message = "--device " + kind + ": there is none",
                 .hint = "qwen devices"});
  }
  if (kind != "auto") return *chosen;
  for (const Device& passed : all) {
    if (passed.kind == chosen->kind) break;
    if (!passed.built) continue;  // nothing that this program could have used
    console.note("using " + chosen->kind + ": " + passed.kind + " cannot be used (" +
                 passed.why_not + ")");
  }
  return *chosen;
}

}  // namespace

OpenedDevice open_device(const ModelOptions& options, Console& console) {
  const Device device = choose_device(options, console);
  const bool one_thread = device.kind == "ref";
  if (one_thread && options.threads.from_option()) {
    usage_error("-t: --device ref has one thread");
  }
  const auto asked = one_thread ? 1 : static_cast<int>(options.threads.value);
  const auto only_for = [&](const std::string& option, bool given, const std::string& kind) {
    if (!given || device.kind == kind) return;
    usage_error(option + " is for --device " + kind + ", the device is " + device.kind);
  };
  only_for("--isa", options.isa.chosen(), "cpu");
  only_for("--level", options.level.chosen(), "cuda");
  only_for("--sync", options.sync, "cuda");
  BackendOptions backend{.threads = asked, .isa = options.isa.value, .exact = options.exact};
  if (options.level.chosen()) backend.cuda.level = cuda_level(options.level.value);
  backend.cuda.sync = options.sync;
  return {device, asked > 0 ? asked : usable_cores(), make_backend(device.kind, backend)};
}

Json OpenedDevice::description() const {
  return {{"kind", device.kind},
          {"name", device.name.empty() ? backend->description() : device.name},
          {"threads", threads},
          {"runs_on", backend->description()}};
}

Engine::Engine(OpenedModel& model, const ModelOptions& options, Console& console)
    : opened_(model),
      options_(options),
      console_(console),
      opened_device_(open_device(options, console)) {
  kv_dtype_ = options.kv.chosen() ? (options.kv.value == "f16" ? DType::kF16 : DType::kF32)
                                  : (device().kind == "cuda" ? DType::kF16 : DType::kF32);
  check_weights_fit(model.weight_bytes(), device());
  show_loading(model.gguf(), console);
  model_ = model.reading([&] { return load_model(model.file(), backend()); });
  check_gpu_layers();
  check_vocabulary_size(model.gguf(), model.tokenizer_data(), shape().n_vocab);
  if (options.layers.value > shape().n_layers) {
    usage_error("--layers " + thousands(options.layers.value) + ": the model has " +
                thousands(shape().n_layers) + " layers");
  }
}

// llama.cpp's -ngl counts layers; here a model is on one device as a whole.
void Engine::check_gpu_layers() const {
  const std::int64_t asked = options_.gpu_layers.value;
  if (asked <= 0 || asked >= shape().n_layers) return;
  usage_error("-ngl " + thousands(asked) + " of " + thousands(shape().n_layers) +
                  " layers: a part of the layers cannot be on the GPU",
              "-ngl 0 for none, -ngl 99 for all");
}

std::int64_t Engine::choose_context(const StepLimits& limits, std::int64_t needed) const {
  const ContextRequest request{.shape = shape(),
                               .kv_dtype = kv_dtype_,
                               .weight_bytes = opened_.weight_bytes(),
                               .max_step_tokens = limits.tokens,
                               .max_step_rows = limits.rows,
                               .n_seqs = limits.n_seqs,
                               .backend_bytes = device().kind == "cuda" ? kCudaBytes : 0};
  // As it was before the weights were placed.
  const std::uint64_t free = free_memory(device());
  const std::int64_t trained = shape().context_length;
  if (options_.ctx.chosen()) return fit_context(request, options_.ctx.value, free, device());
  if (needed > 0) return fit_context(request, std::min(needed, trained), free, device());
  const std::int64_t ctx = fit_context(request, 0, free, device());
  if (ctx < trained) {
    console_.note("context " + thousands(ctx) + " instead of the trained " + thousands(trained) +
                  ": that needs " + bytes_text(memory_need(request, trained).total()) + ", " +
                  bytes_text(free) + " are free");
  }
  return ctx;
}

void Engine::check_ids(std::span<const std::int32_t> ids) const {
  const std::int64_t n_vocab = shape().n_vocab;
  const auto beyond = std::find_if(ids.begin(), ids.end(), [&](auto id) { return id >= n_vocab; });
  if (beyond == ids.end()) return;
  usage_error("--ids: " + std::to_string(*beyond) + " is not in the vocabulary of " +
                  thousands(n_vocab) + " tokens",
              "qwen tokenize shows the ids of a text");
}

std::unique_ptr<Session> Engine::make_session(std::int64_t ctx, const StepLimits& limits) {
  return std::make_unique<Session>(*model_, backend(),
                                   SessionOptions{.ctx = ctx,
                                                  .n_seqs = limits.n_seqs,
                                                  .max_step_tokens = limits.tokens,
                                                  .max_step_rows = limits.rows,
                                                  .kv_dtype = kv_dtype_,
                                                  .n_layers = options_.layers.value});
}

}  // namespace qwen::cli
