# What cmake --install puts where, besides the program: the libraries and their headers, for CMake's
# find_package(qwen) and for pkg-config. And what cpack makes of it: a Debian package.
include(CMakePackageConfigHelpers)

set(headers_dir "${CMAKE_INSTALL_INCLUDEDIR}/qwen")
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/qwen")

# In the order in which a linker needs them.
set(link_flags "")
foreach(part backends cuda cpu loader tokenizer chat_template core)
  if(NOT TARGET qwen_${part})
    continue()
  endif()
  string(APPEND link_flags " -lqwen_${part}")
  # Headers are included by their path from the root of the repository: "core/session.h".
  set_target_properties(qwen_${part} PROPERTIES EXPORT_NAME ${part}
    INTERFACE_COMPILE_FEATURES cxx_std_20 INTERFACE_INCLUDE_DIRECTORIES
    "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>;$<INSTALL_INTERFACE:${headers_dir}>")
  install(TARGETS qwen_${part} EXPORT qwen_targets ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
endforeach()

install(DIRECTORY core loader backends DESTINATION "${headers_dir}" FILES_MATCHING PATTERN "*.h")
install(FILES LICENSE README.md DESTINATION "${CMAKE_INSTALL_DOCDIR}" OPTIONAL)

install(EXPORT qwen_targets NAMESPACE qwen:: DESTINATION "${package_dir}")
configure_package_config_file(cmake/qwenConfig.cmake.in "${PROJECT_BINARY_DIR}/qwenConfig.cmake"
  INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/qwenConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/qwenConfig.cmake" "${PROJECT_BINARY_DIR}/qwenConfigVersion.cmake"
  DESTINATION "${package_dir}")

if(QWEN_HAS_CUDA)
  string(APPEND link_flags " -L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -ldl -lrt")
endif()

# Relative to the file itself, so that the installed tree can be moved.
file(RELATIVE_PATH pc_to_prefix "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" /prefix)
string(REGEX REPLACE "/$" "" pc_to_prefix "${pc_to_prefix}")
configure_file(cmake/qwen.pc.in "${PROJECT_BINARY_DIR}/qwen.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/qwen.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_CONTACT "The qwen authors")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)  # needs dpkg-dev
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
include(CPack)
