#include "backends/cuda/graph/graph_program.h"

#include "backends/cuda/check.h"

namespace qwen::cuda {

GraphProgram::GraphProgram(cudaStream_t stream, const std::function<void()>& launches)
    : stream_(stream) {
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  cudaGraph_t graph = nullptr;
  try {
    launches();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  check(cudaStreamEndCapture(stream, &graph));
  const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
  cudaGraphDestroy(graph);
  check(status);
}

GraphProgram::~GraphProgram() {
  // A launch may still be under way.
  cudaStreamSynchronize(stream_);
  cudaGraphExecDestroy(graph_);
}

void GraphProgram::run() { check(cudaGraphLaunch(graph_, stream_)); }

}  // namespace qwen::cuda
