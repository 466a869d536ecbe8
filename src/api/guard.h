// SPDX-License-Identifier: Apache-2.0
// No exception crosses the C boundary.
#pragma once

#include <exception>
#include <new>

#include "dispatch/message.h"

namespace attnmux {

/// Runs the body of a C function; what it throws becomes a code.
template <typename Body>
attnmux_code guarded(attnmux_error* error, Body body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(error, ATTNMUX_OUT_OF_MEMORY, ATTNMUX_MESSAGE("out of memory"));
  } catch (const std::exception& e) {
    return fail(error, ATTNMUX_EXECUTOR_FAILED, ATTNMUX_MESSAGE("a task threw: " << e.what()));
  } catch (...) {
    return fail(error, ATTNMUX_EXECUTOR_FAILED, ATTNMUX_MESSAGE("a task threw something that is not a std::exception"));
  }
}

}  // namespace attnmux
