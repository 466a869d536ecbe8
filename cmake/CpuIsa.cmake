# SPDX-License-Identifier: Apache-2.0
# Files below src/kernels/cpu that are named after an instruction set are compiled for it, on x86-64 only; everything
# else is compiled for the baseline of the platform. One row per instruction set: its file name and its flags.

set(ATTNMUX_CPU_ISAS avx2 avx512 avx512_bf16 amx)
set(avx2_flags -mavx2 -mfma -mf16c -mbmi2)
set(avx512_flags ${avx2_flags} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd -mprefer-vector-width=512)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 warns about the undefined value inside its own intrinsics, depending on what it inlines.
  list(APPEND avx512_flags -Wno-uninitialized)
endif()
set(avx512_bf16_flags ${avx512_flags} -mavx512bf16 -mavx512vnni)
set(amx_flags ${avx512_bf16_flags} -mamx-tile -mamx-bf16 -mamx-int8)

# attnmux_cpu_isa_sources(SOURCES): sets the flags of the files in the list variable SOURCES, or removes those files
# from it where the target is not x86-64.
function(attnmux_cpu_isa_sources sources)
  foreach(source IN LISTS ${sources})
    cmake_path(GET source STEM name)
    if(NOT name IN_LIST ATTNMUX_CPU_ISAS)
      continue()
    endif()
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${${name}_flags}")
    else()
      list(REMOVE_ITEM ${sources} ${source})
    endif()
  endforeach()
  set(${sources} ${${sources}} PARENT_SCOPE)
endfunction()
