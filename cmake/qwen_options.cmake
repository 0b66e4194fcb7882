# Compiler settings of every target, and the helpers that find Debian's packages.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release or RelWithDebInfo" FORCE)
endif()

# Options for C++ alone: nvcc has its own.
function(qwen_cxx_options)
  foreach(option ${ARGN})
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:${option}>)
  endforeach()
endfunction()

qwen_cxx_options(-Wall -Wextra -Wshadow)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  qwen_cxx_options(-Wno-restrict)  # false alarms on std::string (GCC bug 105329)
endif()
# a*b + c is never fused behind our back: the same bits from every compiler. Kernels that want a fused
# multiply-add say so.
qwen_cxx_options(-ffp-contract=off)
if(QWEN_NATIVE)
  qwen_cxx_options(-march=native)
endif()
if(QWEN_FUZZ)
  set(QWEN_SANITIZE ON)
  qwen_cxx_options(-fsanitize=fuzzer-no-link)
endif()
if(QWEN_SANITIZE)
  qwen_cxx_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
endif()

# Fails with the Debian package to install when a library is missing.
function(qwen_require found what package)
  if(NOT ${found})
    message(FATAL_ERROR "${what} is missing. On Debian and Ubuntu: apt-get install ${package}")
  endif()
endfunction()

# An imported target for a library found through pkg-config: qwen_pkg(pcre2 libpcre2-8 libpcre2-dev)
function(qwen_pkg name module package)
  find_package(PkgConfig QUIET)
  qwen_require(PKG_CONFIG_FOUND pkg-config pkg-config)
  pkg_check_modules(${name} QUIET IMPORTED_TARGET GLOBAL ${module})
  qwen_require(${name}_FOUND ${module} ${package})
endfunction()
