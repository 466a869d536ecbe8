# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` puts where, the CMake package, the pkg-config file, and the uninstall target.

include(CMakePackageConfigHelpers)

install(TARGETS attnmux EXPORT attnmuxTargets)
install(DIRECTORY include/attnmux TYPE INCLUDE)
install(FILES LICENSE TYPE DOC)
if(ATTNMUX_HAS_CUDNN)
  # cudnn_frontend is templates: a library with cuda_cudnn holds code of it, under the MIT licence.
  install(FILES ${ATTNMUX_CUDNN_FRONTEND_INCLUDE_DIR}/../nvidia_cudnn_frontend.LICENSE.txt TYPE DOC OPTIONAL)
endif()
if(TARGET attnmux_executable)
  file(RELATIVE_PATH bin_to_lib ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})
  set_target_properties(attnmux_executable PROPERTIES INSTALL_RPATH $ORIGIN/${bin_to_lib})
  install(TARGETS attnmux_executable)

  # Completions come out of the tool itself, so they need a machine that can run it.
  if(NOT CMAKE_CROSSCOMPILING)
    set(completions "")
    foreach(shell_file IN ITEMS bash:bash-completion/completions/attnmux zsh:zsh/site-functions/_attnmux
                                fish:fish/vendor_completions.d/attnmux.fish)
      string(REGEX MATCH "^([a-z]+):(.*)/([^/]+)$" _ ${shell_file})
      set(shell ${CMAKE_MATCH_1})
      set(file ${PROJECT_BINARY_DIR}/completions/${shell}/${CMAKE_MATCH_3})
      install(FILES ${file} DESTINATION ${CMAKE_INSTALL_DATADIR}/${CMAKE_MATCH_2})
      file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/completions/${shell})
      add_custom_command(OUTPUT ${file} COMMAND attnmux_executable completion ${shell} > ${file} VERBATIM)
      list(APPEND completions ${file})
    endforeach()
    add_custom_target(attnmux_completions ALL DEPENDS ${completions})
  endif()
endif()

# find_package(attnmux)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/attnmux)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/attnmuxConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/attnmuxConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/attnmuxConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/attnmuxConfig.cmake ${PROJECT_BINARY_DIR}/attnmuxConfigVersion.cmake
        DESTINATION ${package_dir})
install(EXPORT attnmuxTargets NAMESPACE attnmux:: DESTINATION ${package_dir})

# pkg-config attnmux. A static archive needs what the shared library brings along by itself.
file(RELATIVE_PATH pc_to_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
cmake_path(SET pc_prefix NORMALIZE ${pc_to_prefix}/)
string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
set(pc_libs -lstdc++ -lm -pthread -ldl)
if(ATTNMUX_HAS_CUDA)
  list(PREPEND pc_libs -L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -lrt)
endif()
list(JOIN pc_libs " " pc_libs)
if(BUILD_SHARED_LIBS)
  set(pc_private_libs "${pc_libs}")
  set(pc_libs "")
endif()
configure_file(${PROJECT_SOURCE_DIR}/cmake/attnmux.pc.in ${PROJECT_BINARY_DIR}/attnmux.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/attnmux.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

if(PROJECT_IS_TOP_LEVEL)
  add_custom_target(
    uninstall
    COMMAND ${CMAKE_COMMAND} -DMANIFEST=${PROJECT_BINARY_DIR}/install_manifest.txt -P
            ${PROJECT_SOURCE_DIR}/cmake/Uninstall.cmake
    COMMENT "Removing what the last install from this build folder put in place"
    USES_TERMINAL VERBATIM)
endif()
