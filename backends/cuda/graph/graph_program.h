// A sequence of launches captured once and replayed as one CUDA graph.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

#include "core/backend.h"

namespace qwen::cuda {

class GraphProgram : public Program {
 public:
  // Captures what `launches` queues on `stream`, which must outlive the program.
  GraphProgram(cudaStream_t stream, const std::function<void()>& launches);
  ~GraphProgram() override;
  GraphProgram(const GraphProgram&) = delete;
  GraphProgram& operator=(const GraphProgram&) = delete;

  void run() override;

 private:
  cudaStream_t stream_;
  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace qwen::cuda
