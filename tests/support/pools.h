// SPDX-License-Identifier: Apache-2.0
// Thread pools as users bring them along: anything with parallel_for(n, body).
#pragma once

#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <thread>
#include <vector>

namespace attnmux::test {

/// One thread after the other, in order; counts what it was asked for.
struct SerialPool {
  int64_t calls = 0, largest = 0;
  template <typename Body>
  void parallel_for(int64_t n, const Body& body) {
    ++calls;
    if (n > largest) largest = n;
    for (int64_t i = 0; i < n; ++i) body(i);
  }
};

/// Last task first: tasks must not depend on their order.
struct BackwardPool {
  template <typename Body>
  void parallel_for(int64_t n, const Body& body) {
    for (int64_t i = n; i-- > 0;) body(i);
  }
};

/// A fresh thread per task.
struct ThreadPerTaskPool {
  std::atomic<int64_t> largest{0};
  template <typename Body>
  void parallel_for(int64_t n, const Body& body) {
    int64_t seen = largest.load();
    while (n > seen && !largest.compare_exchange_weak(seen, n)) {
    }
    std::vector<std::thread> threads;
    for (int64_t i = 0; i < n; ++i) threads.emplace_back([&body, i] { body(i); });
    for (std::thread& t : threads) t.join();
  }
};

struct PoolFailure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Fails after the first task.
struct ThrowingPool {
  template <typename Body>
  void parallel_for(int64_t n, const Body& body) {
    if (n > 0) body(0);
    throw PoolFailure("the pool gave up");
  }
};

}  // namespace attnmux::test
