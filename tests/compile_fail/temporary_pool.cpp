// SPDX-License-Identifier: Apache-2.0
// error: deleted function
// The pool must outlive the call.
#include <attnmux/attnmux.h>

#include <cstdint>

struct Pool {
  template <typename Body>
  void parallel_for(int64_t n, const Body& body) {
    for (int64_t i = 0; i < n; ++i) body(i);
  }
};

attnmux::ExecContext make() {
#ifdef ATTNMUX_RIGHT
  static Pool pool;
  return {.executor = attnmux::Executor::from(pool, 1)};
#else
  return {.executor = attnmux::Executor::from(Pool{}, 1)};
#endif
}
