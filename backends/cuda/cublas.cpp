#include "backends/cuda/cublas.h"

#include <cublas_v2.h>
#include <dlfcn.h>

#include <string>

#include "backends/cuda/check.h"
#include "core/error.h"

namespace qwen::cuda {
namespace {

// NVIDIA's advice for Hopper (cuBLAS documentation, cublasSetWorkspace); more than others need.
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

void check_blas(cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error({.exit = status == CUBLAS_STATUS_ALLOC_FAILED ? Exit::kOutOfMemory : Exit::kFailed,
               .code = "cublas_error",
               .message = "cuBLAS: status " + std::to_string(status),
               .hint = "--sync names the op"});
}

}  // namespace

struct Cublas::Library {
  void* handle = nullptr;
  cublasHandle_t blas = nullptr;
  Buffer workspace;
  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasDestroy_v2) destroy = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  decltype(&cublasSetWorkspace_v2) set_workspace = nullptr;
  // The header overloads it in C++.
  using Gemm = cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int,
                                  int, const void*, const void*, cudaDataType, int, const void*,
                                  cudaDataType, int, const void*, void*, cudaDataType, int,
                                  cublasComputeType_t, cublasGemmAlgo_t);
  Gemm gemm = nullptr;

  template <class F>
  void find(F& function, const char* name) {
    function = reinterpret_cast<F>(dlsym(handle, name));
    if (function == nullptr) missing(std::string("it has no ") + name);
  }
  [[noreturn]] static void missing(const std::string& why) {
    throw Error({.exit = Exit::kModel,
                 .code = "no_cublas",
                 .message = "--device cuda: cuBLAS cannot be loaded (" + why + ")",
                 .hint = "install the CUDA Toolkit's libcublas, or use --device cpu"});
  }
  void open() {
    const std::string name = "libcublas.so." + std::to_string(CUBLAS_VER_MAJOR);
    handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    // Where the toolkit lies when the loader has not been told of it.
    if (handle == nullptr) {
      handle = dlopen(("/usr/local/cuda/lib64/" + name).c_str(), RTLD_NOW | RTLD_LOCAL);
    }
    if (handle == nullptr) missing(dlerror());
    find(create, "cublasCreate_v2");
    find(destroy, "cublasDestroy_v2");
    find(set_stream, "cublasSetStream_v2");
    find(set_workspace, "cublasSetWorkspace_v2");
    find(gemm, "cublasGemmEx");
  }
  // The library itself stays loaded: unloading it would race with its own threads.
  ~Library() {
    if (blas != nullptr) destroy(blas);
  }
};

Cublas::Cublas(cudaStream_t stream, Allocator& allocator) : library_(std::make_unique<Library>()) {
  library_->open();
  check_blas(library_->create(&library_->blas));
  check_blas(library_->set_stream(library_->blas, stream));
  library_->workspace = allocator.device(kWorkspaceBytes);
  check_blas(library_->set_workspace(library_->blas, library_->workspace.get(), kWorkspaceBytes));
}

Cublas::~Cublas() = default;

// cuBLAS counts by columns: our row-by-row matrices are their transposes, so out^T = w x^T.
void Cublas::multiply_f16(const Product& p) {
  check_blas(library_->gemm(library_->blas, CUBLAS_OP_T, CUBLAS_OP_N, p.n_rows, p.n_tokens,
                            p.n_cols, &p.alpha, p.w, CUDA_R_16F, p.n_cols, p.x, CUDA_R_16F,
                            p.n_cols, &p.beta, p.out, CUDA_R_32F, static_cast<int>(p.out_stride),
                            CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

void Cublas::multiply_f32(const Product& p) {
  check_blas(library_->gemm(library_->blas, CUBLAS_OP_T, CUBLAS_OP_N, p.n_rows, p.n_tokens,
                            p.n_cols, &p.alpha, p.w, CUDA_R_32F, p.n_cols, p.x, CUDA_R_32F,
                            p.n_cols, &p.beta, p.out, CUDA_R_32F, static_cast<int>(p.out_stride),
                            CUBLAS_COMPUTE_32F_PEDANTIC, CUBLAS_GEMM_DEFAULT));
}

}  // namespace qwen::cuda
