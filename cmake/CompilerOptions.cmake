# SPDX-License-Identifier: Apache-2.0
# attnmux_compiler_options(TARGET): language, warnings and sanitizers for a target of attnmux's own code.

if(NOT ATTNMUX_SANITIZE MATCHES "^(|address|thread)$")
  message(FATAL_ERROR "ATTNMUX_SANITIZE is '${ATTNMUX_SANITIZE}'; accepted are address, thread and nothing.")
endif()
if(ATTNMUX_FUZZ AND NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "ATTNMUX_FUZZ needs clang's libFuzzer: configure with --preset fuzz, or CC=clang CXX=clang++.")
endif()

set(ATTNMUX_WARNINGS
    -Wall
    -Wextra
    -Wpedantic
    $<IF:$<C_COMPILER_ID:GNU>,-Wshadow=local,-Wshadow> # a constructor's parameter may be called as its member
    -Wundef
    -Wvla
    -Wcast-align
    -Wformat=2
    $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>
    $<$<COMPILE_LANGUAGE:CXX>:-Woverloaded-virtual>
    # Structs of the C ABI grow at their ends: what an initialiser leaves out is zero, and means "not given".
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-missing-field-initializers>
    $<$<BOOL:${ATTNMUX_WERROR}>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # These guess across inlined functions, and g++ 12 often guesses wrong: about its own std::string, and about a test's
  # replaced operator new.
  list(APPEND ATTNMUX_WARNINGS -Wno-maybe-uninitialized -Wno-restrict
              $<$<COMPILE_LANGUAGE:CXX>:-Wno-mismatched-new-delete>)
  if(ATTNMUX_SANITIZE)
    # Its own intrinsics initialise an undefined vector by itself, and under a sanitizer it warns of that.
    list(APPEND ATTNMUX_WARNINGS -Wno-uninitialized)
  endif()
endif()

set(ATTNMUX_SANITIZE_FLAGS "")
if(ATTNMUX_FUZZ)
  set(ATTNMUX_SANITIZE_FLAGS -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
elseif(ATTNMUX_SANITIZE STREQUAL "address")
  set(ATTNMUX_SANITIZE_FLAGS -fsanitize=address,undefined -fno-sanitize-recover=all)
elseif(ATTNMUX_SANITIZE STREQUAL "thread")
  set(ATTNMUX_SANITIZE_FLAGS -fsanitize=thread)
endif()
if(ATTNMUX_SANITIZE_FLAGS)
  list(APPEND ATTNMUX_SANITIZE_FLAGS -fno-omit-frame-pointer)
endif()

function(attnmux_compiler_options target)
  target_compile_features(${target} PUBLIC c_std_11 cxx_std_20)
  set_target_properties(${target} PROPERTIES C_EXTENSIONS OFF CXX_EXTENSIONS OFF C_VISIBILITY_PRESET hidden
                                             CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  # nvcc passes on flags of the host compiler in another way; cmake/Cuda.cmake says which.
  target_compile_options(${target} PRIVATE $<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:${ATTNMUX_WARNINGS}>
                                           ${ATTNMUX_SANITIZE_FLAGS})
  target_link_options(${target} PRIVATE ${ATTNMUX_SANITIZE_FLAGS})
endfunction()
