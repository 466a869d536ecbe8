# SPDX-License-Identifier: Apache-2.0
# ATTNMUX_CUDNN: decides whether the CUDA kernels include cuda_cudnn (ATTNMUX_HAS_CUDNN), which is compiled with the headers
# of cuDNN and of cudnn_frontend. cuDNN itself is not linked: a program looks for it where it runs.
#
# AUTO: yes where the headers are there; otherwise says why not. ON: the same, but a reason is an error.

set(ATTNMUX_HAS_CUDNN FALSE)
if(ATTNMUX_HAS_CUDA AND NOT ATTNMUX_CUDNN STREQUAL "OFF")
  find_path(ATTNMUX_CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h HINTS ${PROJECT_SOURCE_DIR}/build/cudnn/include)
  find_path(ATTNMUX_CUDNN_INCLUDE_DIR cudnn_version.h HINTS ${PROJECT_SOURCE_DIR}/build/cudnn/include
                                                            ${CUDAToolkit_INCLUDE_DIRS})
  mark_as_advanced(ATTNMUX_CUDNN_FRONTEND_INCLUDE_DIR ATTNMUX_CUDNN_INCLUDE_DIR)
  set(cudnn_reason "")
  if(NOT ATTNMUX_CUDNN_FRONTEND_INCLUDE_DIR OR NOT ATTNMUX_CUDNN_INCLUDE_DIR)
    set(cudnn_reason "there is no cudnn_frontend.h or no cudnn_version.h (tools/fetch_cudnn_headers fetches both)")
  else()
    file(STRINGS ${ATTNMUX_CUDNN_INCLUDE_DIR}/cudnn_version.h lines REGEX "#define CUDNN_(MAJOR|MINOR|PATCHLEVEL) [0-9]+")
    string(REGEX MATCHALL "[0-9]+" numbers "${lines}")
    list(JOIN numbers "." cudnn_version)
    if(cudnn_version VERSION_LESS 9.10 OR cudnn_version VERSION_GREATER_EQUAL 10)
      set(cudnn_reason "the headers in ${ATTNMUX_CUDNN_INCLUDE_DIR} are of cuDNN ${cudnn_version}; 9.10 to 9.x are needed")
    endif()
  endif()
  if(cudnn_reason STREQUAL "")
    set(ATTNMUX_HAS_CUDNN TRUE)
    message(STATUS "cuDNN kernel: yes, headers of ${cudnn_version}")
  elseif(NOT ATTNMUX_CUDNN STREQUAL "ON")
    message(STATUS "cuDNN kernel: no, ${cudnn_reason}")
  endif()
else()
  set(cudnn_reason "this build has no CUDA kernels")
endif()
if(ATTNMUX_CUDNN STREQUAL "ON" AND NOT ATTNMUX_HAS_CUDNN)
  message(FATAL_ERROR "ATTNMUX_CUDNN=ON, but ${cudnn_reason}. ATTNMUX_CUDNN=OFF builds without it.")
endif()
