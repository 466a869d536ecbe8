// SPDX-License-Identifier: Apache-2.0
// Random calls over the whole option space. A failure prints the call; its seed is in the test's name and in the text.
#include <gtest/gtest.h>

#include "support/conform.h"

namespace attnmux::test {
namespace {

// Several seeds, so that the work is spread over shards.
class RandomCalls : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Seed, RandomCalls, ::testing::Range(1, 9));

TEST_P(RandomCalls, OnEveryKernel) {
  Random random(static_cast<uint64_t>(GetParam()) * 1'000'003);
  for (int round = 0, n = scaled(3, 120, 4000); round < n; ++round) conform(random_spec(random));
}

// `native` promises to run whatever is valid.
TEST_P(RandomCalls, NativeRunsEverything) {
  Random random(static_cast<uint64_t>(GetParam()) * 7'000'003);
  for (int round = 0, n = scaled(3, 40, 1000); round < n; ++round) {
    const Case c(random_spec(random));
    SCOPED_TRACE(c.spec.text());
    Result r{{}, c.make_out(), c.make_lse()};
    r.status = try_attention(c.q.view(), c.k.view(), c.v.view(), r.out.mutable_view(), c.options(&r.lse));
    ASSERT_TRUE(r.status.ok()) << r.status.message();
    Plan plan;
    ASSERT_TRUE(try_plan(plan, c.q.view(), c.k.view(), c.v.view(), r.out.mutable_view(), c.options(&r.lse)).ok());
    EXPECT_EQ(compare(c, r, kernel_named(plan.kernel())), "") << plan.kernel();
  }
}

// Every bit of the option space is reached by the generator.
TEST(RandomSpec, ReachesEveryFeature) {
  Random random(3);
  uint64_t seen = 0;
  for (int round = 0; round < 500; ++round) seen |= random_spec(random).features();
  EXPECT_EQ(seen, (uint64_t{1} << ATTNMUX_FEATURE_COUNT) - 1);
}

}  // namespace
}  // namespace attnmux::test
