// cuBLAS, loaded when it is first needed: the program starts and runs where it is not installed.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "backends/cuda/memory.h"

namespace qwen::cuda {

// out (n_tokens, n_rows) = x (n_tokens, n_cols) * w (n_rows, n_cols)^T * alpha + beta * out, all
// row by row.
struct Product {
  float* out;
  std::int64_t out_stride;  // floats from one token to the next: at least n_rows
  const void* x;
  const void* w;
  int n_tokens, n_rows, n_cols;
  float alpha = 1;
  float beta = 0;
};

class Cublas {
 public:
  // Loads the library and makes it work on `stream`, with a workspace of its own (so that it can be
  // captured, and gives the same bits every time). Throws Error (Exit::kModel if it is missing).
  Cublas(cudaStream_t stream, Allocator& allocator);
  ~Cublas();
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;

  // x and w are F16, sums FP32.
  void multiply_f16(const Product& p);
  // All FP32, no operand is rounded.
  void multiply_f32(const Product& p);

 private:
  struct Library;
  std::unique_ptr<Library> library_;
};

}  // namespace qwen::cuda
