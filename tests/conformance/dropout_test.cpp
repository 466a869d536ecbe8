// SPDX-License-Identifier: Apache-2.0
// Dropout: the Philox mask of the contract, the same on every kernel, to the bit.
#include <cmath>

#include "support/by_dtype.h"

namespace attnmux::test {
namespace {

class DropoutOf : public ByDtype {};
ATTNMUX_TEST_SUITE_BY_DTYPE(DropoutOf);

TEST_P(DropoutOf, WithinTolerance) {
  for (const double p : {0.0, 0.1, 0.5, 0.97}) {
    Spec s = spec();
    s.dropout = p;
    s.heads_q = 4;
    conform(s);
    s.dropout_seed = UINT64_MAX;
    s.dropout_offset = UINT32_MAX;
    s.causal = true;
    s.causal_align = Align::kTopLeft;
    conform(s);
    s.lengths_q = {9, 0, 40};
    s.lengths_kv = {31, 2, 66};
    conform(s);
  }
}

// v is the identity, so out[query][key] is the probability itself: its zeros are the mask.
TEST_P(DropoutOf, MaskIsExactlyPhilox) {
  for (const Target& target : kernels()) {
    Spec s = spec();
    s.seqlen_q = 23;
    s.seqlen_kv = s.head_dim_v = 131;
    s.head_dim = 16;
    s.heads_q = 4;
    s.values = Values::kZeroQ;
    s.dropout = 0.4;
    s.dropout_offset = 7;
    Case c(s);
    c.v.fill([&](int64_t index) {
      const int64_t key = index / (131 * s.heads_kv) % 131, x = index % 131;
      return key == x ? 1 : 0;
    });
    const Result r = run(c, target);
    if (r.refused()) continue;
    ASSERT_TRUE(r.status.ok()) << r.status.message();
    int64_t kept_total = 0;
    for (int64_t b = 0; b < s.batch; ++b) {
      for (int64_t i = 0; i < s.seqlen_q; ++i) {
        for (int64_t h = 0; h < s.heads_q; ++h) {
          for (int64_t j = 0; j < s.seqlen_kv; ++j) {
            const bool kept = dropout_keeps(0.4, s.dropout_seed, 7, b * s.heads_q + h, i, j);
            kept_total += kept;
            const double got = r.out.get(((b * s.seqlen_q + i) * s.heads_q + h) * 131 + j);
            ASSERT_EQ(got != 0, kept) << target.text() << " b" << b << " h" << h << " i" << i << " j" << j;
            const double expected = kept ? 1 : 0;
            ASSERT_NEAR(got * 131 * 0.6, expected, 4 * rounding_of(s.dtype) + 1e-5) << target.text();
          }
        }
      }
    }
    const double n = static_cast<double>(s.batch * s.seqlen_q * s.heads_q * s.seqlen_kv);
    EXPECT_NEAR(static_cast<double>(kept_total) / n, 0.6, 5 * std::sqrt(0.24 / n));  // the generator is not biased
  }
}

// Over many seeds the mean of the output is the output without dropout.
TEST_P(DropoutOf, ExpectationIsTheOutputWithoutIt) {
  const int seeds = scaled(60, 400, 2000);
  for (const Target& target : kernels()) {
    Spec s = spec();
    s.batch = s.heads_q = s.heads_kv = 1;
    s.seqlen_q = 4;
    s.seqlen_kv = 16;
    s.head_dim = 8;
    s.lse = false;
    s.values = Values::kZeroQ;
    Case c(s);
    c.v.fill([](int64_t) { return 1; });  // without dropout every output is 1
    double sum = 0;
    for (int seed = 0; seed < seeds; ++seed) {
      c.spec.dropout = 0.25;
      c.spec.dropout_seed = static_cast<uint64_t>(seed);
      const Result r = run(c, target);
      if (r.refused()) break;
      for (int64_t row = 0; row < 4; ++row) sum += r.out.get(row * 8);
      if (seed + 1 == seeds) {
        // One row is the mean of 16 kept/0.75: deviation sqrt(p/(1-p)/16).
        const double deviation = std::sqrt(0.25 / 0.75 / 16 / (4.0 * seeds));
        EXPECT_NEAR(sum / (4.0 * seeds), 1, 5 * deviation + 2 * rounding_of(s.dtype)) << target.text();
      }
    }
  }
}

}  // namespace
}  // namespace attnmux::test
