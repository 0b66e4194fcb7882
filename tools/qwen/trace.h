// --trace: what happened, as one JSON object per line.
#pragma once

#include <chrono>
#include <string>

#include "core/backend.h"
#include "core/tokenizer/tokenizer.h"
#include "tools/qwen/console.h"
#include "tools/qwen/output_file.h"

namespace qwen::cli {

// Writes a line for each chosen token, with the likeliest candidates, and with `ops` one for each
// op with its time. Throws Error (Exit::kUsage) if the file cannot be written, or is the model's.
class Trace : public Observer {
 public:
  Trace(const std::string& path, bool ops, const std::string& model_path);

  // {"type":"load", ...}
  void load(const Json& facts);
  // From now on ops of `backend` come in; `tokenizer` may be null. Both must outlive the trace.
  void attach(Backend& backend, const Tokenizer* tokenizer);

  void before(const Op& op, const Tap& tap) override;
  void after(const Op& op, const Tap& tap) override;

 private:
  void line(const Json& json);
  void token(const Sample& op);

  bool ops_;
  OutputFile file_;
  Backend* backend_ = nullptr;
  const Tokenizer* tokenizer_ = nullptr;
  std::chrono::steady_clock::time_point op_start_;
};

}  // namespace qwen::cli
