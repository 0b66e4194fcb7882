# Finds nvcc. QWEN_HAS_CUDA says whether the CUDA backend is built.

# Ampere (80, 86), Ada (89), Hopper (90) and Blackwell (100, 120); development: -DQWEN_CUDA_ARCHITECTURES=90.
set(QWEN_CUDA_ARCHITECTURES "80;86;89;90;100;120" CACHE STRING
  "Compute capabilities to build for, those that nvcc knows")

set(QWEN_HAS_CUDA OFF)
if(QWEN_CUDA STREQUAL OFF)
  return()
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(QWEN_CUDA STREQUAL ON)
    message(FATAL_ERROR "QWEN_CUDA is ON, but nvcc is not found; give it by -DCMAKE_CUDA_COMPILER=")
  endif()
  return()
endif()

execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --list-gpu-code OUTPUT_VARIABLE known)
string(REGEX MATCHALL "sm_[0-9]+" known "${known}")
set(CMAKE_CUDA_ARCHITECTURES "")
foreach(arch ${QWEN_CUDA_ARCHITECTURES})
  if("sm_${arch}" IN_LIST known)
    list(APPEND CMAKE_CUDA_ARCHITECTURES ${arch}-real)
  endif()
endforeach()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
# CMake 3.25 does not know how to ask nvcc for C++20.
foreach(kind STANDARD EXTENSION)
  if(NOT CMAKE_CUDA20_${kind}_COMPILE_OPTION)
    set(CMAKE_CUDA20_${kind}_COMPILE_OPTION "-std=c++20")
  endif()
endforeach()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(QWEN_HAS_CUDA ON)
