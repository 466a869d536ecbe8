// SPDX-License-Identifier: Apache-2.0
// Computing without the GIL, in a way that survives the end of the interpreter.
#pragma once

#include <nanobind/nanobind.h>

#include <utility>

namespace attnmux::python {

/// Runs `body` without the GIL and takes the GIL again.
///
/// A thread that asks for the GIL of an interpreter that is ending is ended by Python (before 3.14) with pthread_exit,
/// which unwinds the stack; C++ frames that are noexcept or catch everything turn that into abort(). So threads that
/// come back from a computation after prepare_exit() wait for the end of the process instead.
void take_gil(PyThreadState* state);

template <typename Body>
auto without_gil(Body&& body) {
  PyThreadState* state = PyEval_SaveThread();
  auto result = std::forward<Body>(body)();  // the C ABI throws nothing
  take_gil(state);
  return result;
}

/// Run by Python's atexit, on the thread that ends the interpreter. Where other threads stay, what they hold is never
/// freed, and that is no leak to report.
void prepare_exit(bool other_threads);
/// Run in the child of a fork: what other threads of the parent were about to do will not happen here.
void forget_threads();

}  // namespace attnmux::python
