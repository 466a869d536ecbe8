// SPDX-License-Identifier: Apache-2.0
// Process-wide settings: threads, workspace cache, log sink, plugins.
#pragma once

#include <attnmux/status.h>

#include <string>

namespace attnmux {

/// Threads of the library's own pool; 0: one per core. Starts from ATTNMUX_NUM_THREADS. Results do not depend on it.
inline Status try_set_num_threads(int num_threads) {
  Status status;
  attnmux_set_num_threads(num_threads, status.c_error());
  return status;
}
inline int num_threads() {
  int32_t n = 1;
  attnmux_num_threads(&n, nullptr);
  return n;
}
/// Frees what no call is using: cached arenas of the CPU, memory pools of GPUs.
inline void release_workspace() { attnmux_release_workspace(); }

/// Receives what the library has to say, one line at a time (ATTNMUX_VERBOSE=dispatch); null restores stderr.
inline void set_log_sink(attnmux_log_sink sink, void* user = nullptr) { attnmux_set_log_sink(sink, user); }

/// Loads a plugin for the rest of the process; its backends are then found by Backend::named.
inline Status try_load_plugin(const std::string& path) {
  Status status;
  attnmux_load_plugin(path.c_str(), status.c_error());
  return status;
}
#if defined(__cpp_exceptions)
inline void set_num_threads(int num_threads) { detail::throw_if_failed(try_set_num_threads(num_threads)); }
inline void load_plugin(const std::string& path) { detail::throw_if_failed(try_load_plugin(path)); }
#endif

}  // namespace attnmux
