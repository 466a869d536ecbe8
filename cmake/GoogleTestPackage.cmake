# SPDX-License-Identifier: Apache-2.0
# GTest::gtest and GTest::gtest_main: the installed libraries, or, for a target that they were not built for, Debian's
# copy of the sources (package googletest).

if(NOT CMAKE_CROSSCOMPILING)
  find_package(GTest REQUIRED)
else()
  set(ATTNMUX_GTEST_SOURCES /usr/src/googletest CACHE PATH "GoogleTest's sources, for cross builds")
  set(INSTALL_GTEST OFF)
  set(BUILD_GMOCK OFF)
  set(build_shared_libs ${BUILD_SHARED_LIBS})
  set(BUILD_SHARED_LIBS OFF)
  add_subdirectory(${ATTNMUX_GTEST_SOURCES} ${PROJECT_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
  set(BUILD_SHARED_LIBS ${build_shared_libs})
  if(NOT TARGET GTest::gtest)
    add_library(GTest::gtest ALIAS gtest)
    add_library(GTest::gtest_main ALIAS gtest_main)
  endif()
endif()
