// SPDX-License-Identifier: Apache-2.0
#include "gil.h"

#include <atomic>
#include <chrono>
#include <thread>

namespace attnmux::python {
namespace {

std::atomic<bool> ending{false};
std::atomic<int> returning{0};  // threads between their look at `ending` and the GIL
std::thread::id ending_thread;  // written before `ending`

}  // namespace

void take_gil(PyThreadState* state) {
  returning.fetch_add(1);
  if (ending.load() && std::this_thread::get_id() != ending_thread) {
    returning.fetch_sub(1);
    while (true) std::this_thread::sleep_for(std::chrono::hours(1));
  }
  PyEval_RestoreThread(state);
  returning.fetch_sub(1);
}

void prepare_exit(bool other_threads) {
  if (other_threads) nanobind::set_leak_warnings(false);
  ending_thread = std::this_thread::get_id();
  ending.store(true);
  // Whoever looked before that still gets the GIL, now and not when it is too late.
  PyThreadState* state = PyEval_SaveThread();
  while (returning.load() != 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
  PyEval_RestoreThread(state);
}

void forget_threads() { returning.store(0); }

}  // namespace attnmux::python
