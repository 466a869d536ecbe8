# SPDX-License-Identifier: Apache-2.0
# ATTNMUX_CUDA: decides whether this build has CUDA kernels (ATTNMUX_HAS_CUDA), and how their files are compiled.
#
# AUTO: yes where a CUDA toolkit of version 13 or newer works here; otherwise says why not. ON: the same, but a reason is
# an error. Nothing of CUDA is needed where the program runs: the runtime is linked statically, and the driver is looked
# for when it is first needed.

set(ATTNMUX_CUDA_MINIMUM 13.0)
# sm80 machine code and its PTX serve every GPU from Ampere on: the driver compiles the PTX for the newer ones.
set(ATTNMUX_CUDA_ARCHITECTURES 80 CACHE STRING "GPU architectures of the CUDA kernels, as in CMAKE_CUDA_ARCHITECTURES")

set(ATTNMUX_HAS_CUDA FALSE)
set(cuda_reasons "")
if(NOT ATTNMUX_CUDA STREQUAL "OFF")
  if(ATTNMUX_SANITIZE OR ATTNMUX_FUZZ)
    list(APPEND cuda_reasons "sanitizers and fuzzing do not work with nvcc's code")
  endif()
  if(CMAKE_CROSSCOMPILING)
    list(APPEND cuda_reasons "this is a cross build")
  endif()
  if(NOT cuda_reasons)
    # Debian's nvcc lies on the PATH, NVIDIA's often does not.
    find_program(ATTNMUX_NVCC nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
    mark_as_advanced(ATTNMUX_NVCC)
    if(CMAKE_CUDA_COMPILER OR ATTNMUX_NVCC)
      if(NOT CMAKE_CUDA_COMPILER)
        set(CMAKE_CUDA_COMPILER ${ATTNMUX_NVCC})
      endif()
      execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE nvcc_text ERROR_QUIET)
      string(REGEX MATCH "release ([0-9]+\\.[0-9]+)" _ "${nvcc_text}")
      set(nvcc_version "${CMAKE_MATCH_1}")
      if(nvcc_version STREQUAL "")
        list(APPEND cuda_reasons "${CMAKE_CUDA_COMPILER} --version does not say a version")
      elseif(nvcc_version VERSION_LESS ATTNMUX_CUDA_MINIMUM)
        list(APPEND cuda_reasons "${CMAKE_CUDA_COMPILER} is version ${nvcc_version}; ${ATTNMUX_CUDA_MINIMUM} or newer is needed")
      endif()
    else()
      list(APPEND cuda_reasons "there is no nvcc on the PATH, below CUDA_PATH or in /usr/local/cuda (-DCMAKE_CUDA_COMPILER=FILE names one)")
    endif()
  endif()
  if(NOT cuda_reasons AND NOT ATTNMUX_NVCC_WORKS STREQUAL CMAKE_CUDA_COMPILER)
    # A program of one line, before enable_language, which would stop where nvcc does not work.
    file(WRITE ${PROJECT_BINARY_DIR}/CMakeFiles/attnmux_nvcc.cu "__global__ void kernel(int* x) { *x = 1; }\n")
    execute_process(
      COMMAND ${CMAKE_CUDA_COMPILER} -std=c++20 -ccbin ${CMAKE_CXX_COMPILER} -c ${PROJECT_BINARY_DIR}/CMakeFiles/attnmux_nvcc.cu
              -o ${PROJECT_BINARY_DIR}/CMakeFiles/attnmux_nvcc.o
      RESULT_VARIABLE nvcc_result
      OUTPUT_VARIABLE nvcc_text
      ERROR_VARIABLE nvcc_text)
    if(nvcc_result EQUAL 0 AND EXISTS ${PROJECT_BINARY_DIR}/CMakeFiles/attnmux_nvcc.o)
      set(ATTNMUX_NVCC_WORKS ${CMAKE_CUDA_COMPILER} CACHE INTERNAL "The nvcc that was seen to compile")
    else()
      string(STRIP "${nvcc_text}" nvcc_text)
      list(APPEND cuda_reasons "${CMAKE_CUDA_COMPILER} does not compile a program of one line (${nvcc_text})")
    endif()
  endif()
  if(NOT cuda_reasons)
    set(CMAKE_CUDA_ARCHITECTURES ${ATTNMUX_CUDA_ARCHITECTURES})
    set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
    enable_language(CUDA)
    # CMake 3.25 knows no C++20 for nvcc and would stop; nvcc does know it.
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    endif()
    find_package(CUDAToolkit QUIET)
    if(NOT TARGET CUDA::cudart_static)
      list(APPEND cuda_reasons "the toolkit of ${CMAKE_CUDA_COMPILER} has no libcudart_static.a")
    endif()
  endif()
  if(NOT cuda_reasons)
    set(ATTNMUX_HAS_CUDA TRUE)
    message(STATUS "CUDA kernels: yes, nvcc ${nvcc_version}, architectures ${ATTNMUX_CUDA_ARCHITECTURES}")
  elseif(ATTNMUX_CUDA STREQUAL "ON")
    list(JOIN cuda_reasons "; " cuda_reasons)
    message(FATAL_ERROR "ATTNMUX_CUDA=ON, but ${cuda_reasons}. ATTNMUX_CUDA=OFF builds without CUDA kernels.")
  else()
    list(JOIN cuda_reasons "; " cuda_reasons)
    message(STATUS "CUDA kernels: no, ${cuda_reasons}")
  endif()
endif()

# attnmux_cuda_options(TARGET): how the .cu files of TARGET are compiled. What ptxas says of them is checked: a spill, or
# a warning about serialised wgmma, fails the build unless tools/ptxas_allowed.txt names the function.
function(attnmux_cuda_options target)
  set_target_properties(
    ${target} PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF CUDA_VISIBILITY_PRESET hidden
                         CUDA_ARCHITECTURES "${ATTNMUX_CUDA_ARCHITECTURES}" CUDA_RUNTIME_LIBRARY Static)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  set_target_properties(
    ${target}
    PROPERTIES CUDA_COMPILER_LAUNCHER
               "${Python3_EXECUTABLE};${PROJECT_SOURCE_DIR}/tools/checked_nvcc;--allow;${PROJECT_SOURCE_DIR}/tools/ptxas_allowed.txt")
  target_compile_options(
    ${target}
    PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Xptxas=-v -Xcompiler=-Wall,-Wextra,-Wno-unused-function
            $<$<BOOL:${ATTNMUX_WERROR}>:-Werror=all-warnings>>)
endfunction()
