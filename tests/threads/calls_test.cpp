// SPDX-License-Identifier: Apache-2.0
// Calls on many threads at once give, bit for bit, what they give alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <thread>

#include "support/conform.h"
#include "support/pools.h"

namespace attnmux::test {
namespace {

constexpr int kThreads = 8;

std::vector<Spec> some_specs() {
  Spec plain;
  plain.dtype = Dtype::kBf16;
  plain.head_dim = 64;
  plain.seqlen_q = plain.seqlen_kv = 90;
  Spec masked = plain;
  masked.dtype = Dtype::kFp32;
  masked.causal = true;
  masked.key_lengths = {90, 17};
  masked.causal_align = Align::kBottomRight;
  Spec packed;
  packed.lengths_q = {40, 3, 60};
  packed.lengths_kv = {12, 80, 60};
  packed.dropout = 0.3;
  return {plain, masked, packed};
}

bool same(const Result& a, const Result& b) {
  return a.status.code() == b.status.code() && a.out.element_bytes() == b.out.element_bytes() &&
         a.lse.element_bytes() == b.lse.element_bytes();
}

// Makes a call of its own in front of every job.
template <typename Before>
struct ReentrantPool {
  const Before& before;
  template <typename Body>
  void parallel_for(int64_t n, const Body& body) {
    before();
    for (int64_t i = 0; i < n; ++i) body(i);
  }
};

TEST(CallsOnThreads, OfDifferentBackendsGiveTheSerialResults) {
  std::vector<Case> cases;
  for (const Spec& s : some_specs()) cases.emplace_back(s);
  struct Job {
    const Case* c;
    const Target* target;
    Result serial;
  };
  std::vector<Job> jobs;
  for (const Case& c : cases) {
    for (const Target& t : targets()) jobs.push_back({&c, &t, run(c, t)});
  }
  std::atomic<int> wrong{0};
  std::barrier start(kThreads);
  std::vector<std::thread> threads;
  for (int id = 0; id < kThreads; ++id) {
    threads.emplace_back([&, id] {
      start.arrive_and_wait();
      // Every thread starts at another job, so that different backends run at the same time.
      for (size_t i = 0; i < jobs.size(); ++i) {
        const Job& job = jobs[(i + static_cast<size_t>(id) * jobs.size() / kThreads) % jobs.size()];
        wrong += !same(run(*job.c, *job.target), job.serial);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0) << "of " << jobs.size() * kThreads << " calls";
}

TEST(CallsOnThreads, OfOnePlanEachWithItsOwnWorkspace) {
  for (const Spec& s : some_specs()) {
    const Case c(s);
    for (const Target& target : kernels()) {
      AttentionOptions options = c.options();
      options.backend = target.backend;
      options.kernel = target.kernel;
      Tensor expected = c.make_out();
      Plan plan;
      if (!try_plan(plan, c.q.view(), c.k.view(), c.v.view(), expected.mutable_view(), options)) continue;
      plan.run(c.q.view(), c.k.view(), c.v.view(), expected.mutable_view(), options);
      std::atomic<int> wrong{0};
      std::vector<std::thread> threads;
      for (int id = 0; id < kThreads; ++id) {
        threads.emplace_back([&, id] {
          std::vector<std::byte> workspace(plan.workspace_bytes());
          for (int round = 0; round < 5; ++round) {
            Tensor out = c.make_out();
            ExecContext exec;
            if (id % 2 == 0) exec.workspace = std::span(workspace);
            wrong += !plan.try_run(c.q.view(), c.k.view(), c.v.view(), out.mutable_view(), options, exec).ok();
            wrong += out.element_bytes() != expected.element_bytes();
          }
        });
      }
      for (std::thread& t : threads) t.join();
      EXPECT_EQ(wrong.load(), 0) << target.text();
    }
  }
}

// The first kernel that takes the case's dtype.
const Target& first_for(const Case& c) {
  return *std::find_if(kernels().begin(), kernels().end(), [&](const Target& t) { return t.takes(c.spec.dtype); });
}

// attention() from inside the caller's own pool, and from inside a task of the library's: no deadlock, same bits.
TEST(CallsOnThreads, Nested) {
  const Case c(some_specs()[0]);
  const Target& target = first_for(c);
  const Result expected = run(c, target);
  ASSERT_TRUE(expected.status.ok()) << expected.status.message();
  std::atomic<int> wrong{0};
  ThreadPerTaskPool pool;
  pool.parallel_for(4, [&](int64_t) { wrong += !same(run(c, target), expected); });
  const auto call_again = [&] { wrong += !same(run(c, target), expected); };
  ReentrantPool<decltype(call_again)> reentrant{call_again};
  wrong += !same(run(c, target, {.executor = Executor::from(reentrant, 3)}), expected);
  EXPECT_EQ(wrong.load(), 0);
}

// First use from everywhere at once: the environment, the table and the pool are made once.
TEST(CallsOnThreads, ThreadsThatComeAndGo) {
  const Case c(some_specs()[1]);
  const Target& target = first_for(c);
  const Result expected = run(c, target);
  ASSERT_TRUE(expected.status.ok()) << expected.status.message();
  std::atomic<int> wrong{0};
  for (int round = 0; round < scaled(10, 60, 300); ++round) {
    std::vector<std::thread> threads;
    for (int id = 0; id < 3; ++id) threads.emplace_back([&] { wrong += !same(run(c, target), expected); });
    for (std::thread& t : threads) t.join();
  }
  EXPECT_EQ(wrong.load(), 0);
}

}  // namespace
}  // namespace attnmux::test
