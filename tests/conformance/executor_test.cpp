// SPDX-License-Identifier: Apache-2.0
// The caller's own threads.
#include <gtest/gtest.h>

#include "support/conform.h"
#include "support/pools.h"

namespace attnmux::test {
namespace {

Spec busy() {
  Spec s;
  s.dtype = Dtype::kBf16;  // which every kernel takes
  s.batch = 2;
  s.heads_q = s.heads_kv = 4;
  s.seqlen_q = s.seqlen_kv = scaled(60, 200, 200);
  return s;
}

TEST(ExecutorOf, TheCallersPoolDoesTheWork) {
  const Case c(busy());
  for (const Target& target : kernels()) {
    if (target.on_cuda) continue;  // a GPU's work is not the pool's
    SerialPool pool;
    const Result r = run(c, target, {.executor = Executor::from(pool, 3)});
    ASSERT_TRUE(r.status.ok()) << r.status.message();
    EXPECT_EQ(compare(c, r, target), "") << target.text();
    EXPECT_GT(pool.calls, 0) << target.text();
  }
}

TEST(ExecutorOf, WhatItThrowsReachesTheCaller) {
  const Case c(busy());
  for (const Target& target : kernels()) {
    if (target.on_cuda) continue;  // a GPU's work is not the pool's
    ThrowingPool pool;
    Tensor out = c.make_out();
    const AttentionOptions options{.backend = target.backend, .kernel = target.kernel};
    const ExecContext exec{.executor = Executor::from(pool, 3)};
    EXPECT_THROW(attention(c.q.view(), c.k.view(), c.v.view(), out.mutable_view(), options, exec), PoolFailure)
        << target.text();
    const Status status = try_attention(c.q.view(), c.k.view(), c.v.view(), out.mutable_view(), options, exec);
    EXPECT_EQ(status.code(), Code::kExecutorFailed) << target.text();
    EXPECT_TRUE(status.message().starts_with("[attention] ")) << status.message();
    // A plan, too; and the library is none the worse for it.
    const Plan made = plan(c.q.view(), c.k.view(), c.v.view(), out.mutable_view(), options, exec);
    EXPECT_THROW(made.run(c.q.view(), c.k.view(), c.v.view(), out.mutable_view(), options, exec), PoolFailure);
    EXPECT_EQ(compare(c, run(c, target), target), "");
  }
}

TEST(ExecutorOf, ACPoolThatReportsFailure) {
  const Case c(busy());
  Tensor out = c.make_out();
  attnmux_exec exec{};
  exec.struct_size = sizeof(exec);
  exec.num_threads = 2;
  exec.parallel_for = [](void*, int64_t, void (*)(void*, int64_t), void*) -> int32_t { return 42; };
  Status status;
  const attnmux_tensor o = out.mutable_view().c();
  const attnmux_code code =
      attnmux_attention(&c.q.view().c(), &c.k.view().c(), &c.v.view().c(), &o, nullptr, &exec, status.c_error());
  EXPECT_EQ(code, ATTNMUX_EXECUTOR_FAILED);
  EXPECT_EQ(status.code(), Code::kExecutorFailed);
}

TEST(ExecutorOf, NeedsAtLeastOneThread) {
  const Case c(busy());
  for (const int threads : {0, -1}) {
    SerialPool pool;
    Tensor out = c.make_out();
    const Status status = try_attention(c.q.view(), c.k.view(), c.v.view(), out.mutable_view(), {},
                                        {.executor = Executor::from(pool, threads)});
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << threads;
    EXPECT_NE(status.message().find("num_threads"), std::string_view::npos) << status.message();
    EXPECT_NE(status.message().find(std::to_string(threads)), std::string_view::npos) << status.message();
  }
}

}  // namespace
}  // namespace attnmux::test
