// SPDX-License-Identifier: Apache-2.0
// The same inputs on the same kernel give the same bits: every time, with any number of threads, in any order of tasks.
#include "support/by_dtype.h"
#include "support/pools.h"

namespace attnmux::test {
namespace {

class Determinism : public ByDtype {
 protected:
  std::vector<Spec> specs() const {
    Spec plain = spec();
    plain.batch = 3;
    plain.heads_q = 4;
    plain.seqlen_q = scaled(40, 150, 150);
    plain.seqlen_kv = scaled(70, 200, 200);
    Spec masked = plain;
    masked.causal = true;
    masked.causal_align = Align::kBottomRight;
    masked.key_lengths = {static_cast<int32_t>(plain.seqlen_kv), 3, 65};
    masked.softcap = 4;
    Spec one_row = plain;  // decoding: the keys may be split among threads
    one_row.batch = one_row.heads_q = one_row.heads_kv = 1;
    one_row.seqlen_q = 1;
    one_row.seqlen_kv = scaled(300, 1500, 1500);
    Spec packed = spec();
    packed.lengths_q = {scaled(30, 100, 100), 1, 40};
    packed.lengths_kv = {10, scaled(100, 300, 300), 40};
    packed.dropout = 0.2;
    return {plain, masked, one_row, packed};
  }
};
ATTNMUX_TEST_SUITE_BY_DTYPE(Determinism);

TEST_P(Determinism, OverRepeatsThreadsAndPools) {
  for (const Spec& s : specs()) {
    const Case c(s);
    for (const Target& target : kernels()) {
      SCOPED_TRACE(target.text() + ": " + s.text());
      const Result first = run(c, target, {.num_threads = 1});
      if (first.refused()) continue;
      ASSERT_TRUE(first.status.ok()) << first.status.message();
      SerialPool serial;
      BackwardPool backward;
      ThreadPerTaskPool threads;
      const ExecContext ways[] = {{},
                                  {},
                                  {.num_threads = 2},
                                  {.num_threads = 3},
                                  {.executor = Executor::from(serial, 1)},
                                  {.executor = Executor::from(serial, 5)},
                                  {.executor = Executor::from(backward, 4)},
                                  {.executor = Executor::from(threads, 8)}};
      for (const ExecContext& way : ways) {
        const Result again = run(c, target, way);
        ASSERT_TRUE(again.status.ok()) << again.status.message();
        EXPECT_EQ(again.out.element_bytes(), first.out.element_bytes());
        EXPECT_EQ(again.lse.element_bytes(), first.lse.element_bytes());
      }
      EXPECT_LE(serial.largest, 5) << "more tasks than announced threads";
      EXPECT_LE(threads.largest.load(), 8) << "more tasks than announced threads";
    }
  }
}

TEST_P(Determinism, OverThePoolsThreadCount) {
  const Case c(specs()[0]);
  for (const Target& target : kernels()) {
    std::vector<std::byte> first;
    for (const int n : {1, 2, 3, 0}) {
      set_num_threads(n);
      const Result r = run(c, target);
      if (r.refused()) break;
      ASSERT_TRUE(r.status.ok()) << r.status.message();
      if (first.empty()) first = r.out.element_bytes();
      EXPECT_EQ(r.out.element_bytes(), first) << target.text() << " with " << n << " threads";
    }
  }
  set_num_threads(0);
}

}  // namespace
}  // namespace attnmux::test
