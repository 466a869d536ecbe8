// SPDX-License-Identifier: Apache-2.0
// The ATTNMUX_* variables, read once at first use.
#pragma once

#include <string>

#include "dispatch/message.h"

namespace attnmux {

struct Environment {
  std::string default_backend;    // ATTNMUX_BACKEND; "" when not set
  std::string force_backend;      // ATTNMUX_FORCE_BACKEND
  int32_t num_threads = 0;        // ATTNMUX_NUM_THREADS; 0: all cores
  bool verbose_dispatch = false;  // ATTNMUX_VERBOSE=dispatch
  bool check_sync = false;        // ATTNMUX_CHECK=sync
  attnmux_error error{};          // of the first bad value
};

const Environment& environment();

/// The names of the variables, for doctor.
inline constexpr const char* kEnvironmentNames[] = {
    "ATTNMUX_BACKEND", "ATTNMUX_FORCE_BACKEND", "ATTNMUX_MAX_CPU_ISA", "ATTNMUX_NUM_THREADS",
    "ATTNMUX_VERBOSE", "ATTNMUX_CHECK",         "ATTNMUX_CUDNN_PATH"};

/// Every call starts with this: a bad value is an error at first use, and stays one.
inline attnmux_code check_environment(attnmux_error* error) {
  const Environment& e = environment();
  if (e.error.code == ATTNMUX_OK) [[likely]]
    return ATTNMUX_OK;
  if (error != nullptr) *error = e.error;
  return e.error.code;
}

}  // namespace attnmux
