#include "tools/qwen/options.h"

#include <sys/stat.h>

#include <limits>

#include "tools/default_model/default_model.h"

namespace qwen::cli {
namespace {

constexpr std::int64_t kMaxInt32 = std::numeric_limits<std::int32_t>::max();

bool looks_like_model(const std::string& word) {
  struct stat status {};
  return word == kDefaultModel || word.ends_with(".gguf") || stat(word.c_str(), &status) == 0;
}

}  // namespace

void OutputOptions::declare(Parser& parser) {
  parser.flag("--json", json, "one JSON document on standard output");
  parser.flag("-q,--quiet", quiet, "errors only on standard error");
  parser.flag("-v,--verbose", verbose, "say where each value comes from");
  parser.choice("--color", color, {"auto", "always", "never"}, "colours on standard error");
}

void OutputOptions::apply(Console& console) const {
  if (quiet && verbose) usage_error("-q and -v exclude each other");
  console.configure(color.value, quiet, verbose, json);
}

void ModelOptions::declare_model(Parser& parser) {
  parser.text(
      "-m,--model", model,
      "the model, a .gguf file; also the first argument; default: the small model in qwen itself");
}

void ModelOptions::declare(Parser& parser) {
  declare_model(parser);
  parser.choice("--device", device, {"auto", "cuda", "cpu", "ref"},
                "auto: the GPU if there is a usable one, else the CPU; cuda never falls back; ref: "
                "the scalar reference");
  parser.integer(
      "-t,--threads", threads, {1, 1024},
      "threads; default: the physical cores that this process may use; --device ref has one");
  parser.integer("-c,--ctx-size", ctx, {1, kMaxInt32},
                 "context in tokens; default: the model's trained length, shrunk to what memory "
                 "holds");
  parser.integer("--layers", layers, {0, kMaxInt32},
                 "run only the first N layers, then the final norm and head");
  parser.integer("--gpu-layers,--n-gpu-layers", gpu_layers, {0, kMaxInt32},
                 "-ngl: 0 is --device cpu, all layers or more is all on the GPU");
  parser.choice("--isa", isa, {"avx512", "avxvnni", "avx2", "baseline"},
                "instruction set of --device cpu; default: the widest that the processor has");
  parser.choice("--kv", kv, {"f16", "f32"},
                "numbers of the key/value cache; default: f16 on cuda, f32 on cpu and ref");
  parser.choice("--level", level, {"eager", "graph", "fused"},
                "how --device cuda runs a step: op by op, as a graph of the same launches, or with "
                "ops fused too (default)");
  parser.flag("--exact", exact,
              "FP32 operands in every matrix product: no F16 on cuda, no 8-bit activations on cpu");
  parser.flag("--sync", sync, "--device cuda waits after each op, so that an error names it");

  const std::string later = "not supported";
  parser.refuse("--flash-attn", "attention is chosen by the backend, there is nothing to switch");
  parser.refuse("-b,--batch-size,--ubatch-size", "the size of prompt steps is fixed");
  parser.refuse("--threads-batch", "prompt and decode use the same threads: -t");
  parser.refuse("--split-mode,--tensor-split,--main-gpu", "several GPUs are not supported");
  parser.refuse("--cache-type-k,--cache-type-v", "keys and values have one type: --kv f16 or f32");
  parser.refuse("--mlock,--no-mmap,--numa", "the file is always mapped");
  parser.refuse("--hf-repo,--hf-file,--model-url", "downloads are not built yet; give a file");
  parser.refuse("--lora,--lora-scaled,--control-vector", later);
  parser.refuse("--rope-scaling,--rope-scale,--rope-freq-base,--rope-freq-scale,--yarn-orig-ctx",
                "rotary positions are read from the file");
  parser.refuse("--override-kv", "the file's values count");
}

std::string ModelOptions::take_model(Console& console, std::size_t n_words, bool has_text) {
  if (!words.empty() && !model.from_option()) {
    // One argument can be either: a model is what names a file. With no other model only a sentence
    // is text: a word may be a mistyped command, or the name of a file that is not there.
    const bool is_sentence = words.front().find_first_of(" \t\n") != std::string::npos;
    const bool can_be_text =
        words.size() == 1 && n_words > 0 && (model.chosen() || (is_sentence && !has_text));
    if (!can_be_text || looks_like_model(words.front())) {
      model.set(words.front(), "argument");
      words.erase(words.begin());
    }
  }
  if (words.size() > n_words) {
    usage_error("unexpected argument '" + words[n_words] + "'",
                model.from_option() ? "the model was given by -m already" : "");
  }
  if (model.chosen() && model.value.empty()) {
    usage_error("the name of the model is empty",
                "-m FILE.gguf names one; without any the small one that is part of qwen is used");
  }
  if (!model.chosen()) {
    model.value = kDefaultModel;
    console.note("no model given: using the small one that is part of qwen (-m FILE.gguf)");
  }
  return model.value;
}

}  // namespace qwen::cli
