// SPDX-License-Identifier: Apache-2.0
// The log-sum-exp: natural log, fp32, (B, Hq, Sq), packed (Hq, T); with scale, softcap, bias and masks, without
// dropout.
#include <cmath>
#include <limits>

#include "support/by_dtype.h"

namespace attnmux::test {
namespace {

class Lse : public ByDtype {};
ATTNMUX_TEST_SUITE_BY_DTYPE(Lse);

TEST_P(Lse, EveryLayout) {
  for (const Layout layout : kOutputLayouts) {
    Spec s = spec();
    s.batch = 3;
    s.heads_q = 4;
    s.layout_lse = layout;
    conform(s);
    s.lengths_q = {5, 0, 33};
    s.lengths_kv = {17, 4, 9};
    conform(s);
  }
}

// Rows need not be contiguous: stored as (B, Sq, Hq).
TEST_P(Lse, HeadsInnermost) {
  Spec s = spec();
  s.heads_q = 4;
  const Case c(s);
  for (const Target& target : kernels()) {
    const Result expected = run(c, target);
    Result r{{}, c.make_out(), Tensor::output(Dtype::kFp32, {s.batch, s.seqlen_q, s.heads_q})};
    r.lse.poison();
    AttentionOptions options = c.options();
    options.lse = r.lse.mutable_view().transposed(1, 2);
    options.backend = target.backend;
    options.kernel = target.kernel;
    r.status = try_attention(c.q.view(), c.k.view(), c.v.view(), r.out.mutable_view(), options);
    if (r.refused()) continue;
    ASSERT_TRUE(r.status.ok()) << r.status.message();
    EXPECT_TRUE(r.lse.surroundings_intact());
    for (int64_t i = 0; i < r.lse.count(); ++i) {
      const int64_t head = i % s.heads_q, row = i / s.heads_q % s.seqlen_q, batch = i / s.heads_q / s.seqlen_q;
      ASSERT_EQ(r.lse.get(i), expected.lse.get((batch * s.heads_q + head) * s.seqlen_q + row)) << target.text();
    }
  }
}

TEST_P(Lse, IsANaturalLogarithm) {
  for (const Target& target : kernels()) {
    Spec s = spec();
    s.values = Values::kZeroQ;
    s.seqlen_kv = 100;
    const Case c(s);
    const Result r = run(c, target);
    if (r.refused()) continue;
    for (int64_t i = 0; i < r.lse.count(); ++i)
      ASSERT_NEAR(r.lse.get(i), std::log(100.0), 1e-6 + lse_allowance(target, s.dtype)) << target.text();
  }
}

TEST_P(Lse, EmptyRowsGiveMinusInfinity) {
  for (const Target& target : kernels()) {
    Spec s = spec();
    s.key_lengths = {0, 65};
    const Case c(s);
    const Result r = run(c, target);
    if (r.refused()) continue;
    const int64_t half = r.lse.count() / 2;
    for (int64_t i = 0; i < r.lse.count(); ++i) {
      const bool minus_infinity = std::isinf(r.lse.get(i)) && r.lse.get(i) < 0;
      ASSERT_EQ(minus_infinity, i < half) << target.text() << " at " << i;
    }
    for (int64_t i = 0; i < r.out.count() / 2; ++i) ASSERT_EQ(r.out.get(i), 0) << target.text();
  }
}

TEST_P(Lse, WithEverythingThatShiftsScores) {
  Spec s = spec();
  s.scale = -0.4;
  s.softcap = 3;
  s.bias = BiasKind::kRowsMinusInf;
  s.padding = Padding::kHoles;
  s.causal = true;
  s.causal_align = Align::kBottomRight;
  conform(s);
  s.dropout = 0.3;
  conform(s);
}

// Asking for it does not change the output, and dropout does not change it.
TEST_P(Lse, ChangesNothingElse) {
  for (const Target& target : kernels()) {
    Spec s = spec();
    s.lse = false;
    const Result without = run(Case(s), target);
    s.lse = true;
    const Result with = run(Case(s), target);
    s.dropout = 0.5;
    const Result dropped = run(Case(s), target);
    if (without.refused() || with.refused()) continue;
    EXPECT_EQ(without.out.element_bytes(), with.out.element_bytes()) << target.text();
    if (dropped.refused()) continue;
    EXPECT_EQ(dropped.lse.element_bytes(), with.lse.element_bytes()) << target.text();
  }
}

}  // namespace
}  // namespace attnmux::test
