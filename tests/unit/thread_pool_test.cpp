// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/runtime/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

namespace attnmux {
namespace {

class ThreadPool : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { set_num_pool_threads(GetParam()); }
  void TearDown() override { set_num_pool_threads(0); }
};

template <typename Body>
void parallel_for(int64_t n, Body body) {
  pool_parallel_for(nullptr, n, [](void* b, int64_t task) { (*static_cast<Body*>(b))(task); }, &body);
}

TEST_P(ThreadPool, EveryTaskRunsOnce) {
  for (int64_t n : {0, 1, 2, 3, 7, 100}) {
    std::vector<std::atomic<int>> count(static_cast<size_t>(n));
    parallel_for(n, [&](int64_t task) { ++count[static_cast<size_t>(task)]; });
    for (const auto& c : count) EXPECT_EQ(c, 1);
  }
}

TEST_P(ThreadPool, ManyCallersAtOnce) {
  std::vector<std::thread> callers;
  std::atomic<int64_t> sum{0};
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 200; ++repeat) parallel_for(5, [&](int64_t task) { sum += task; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 4 * 200 * 10);
}

TEST_P(ThreadPool, WhatATaskThrowsReachesTheCaller) {
  EXPECT_THROW(parallel_for(8,
                            [](int64_t task) {
                              if (task == 5) throw std::runtime_error("five");
                            }),
               std::runtime_error);
  int64_t after = 0;
  parallel_for(1, [&](int64_t) { after = 1; });
  EXPECT_EQ(after, 1);
}

TEST_P(ThreadPool, ATaskMayCallParallelFor) {
  std::atomic<int> inner{0};
  parallel_for(3, [&](int64_t) { parallel_for(3, [&](int64_t) { ++inner; }); });
  EXPECT_EQ(inner, 9);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPool, testing::Values(1, 2, 4));

}  // namespace
}  // namespace attnmux
