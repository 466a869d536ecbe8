// SPDX-License-Identifier: Apache-2.0
// What masked positions hold never matters; what attended ones hold always does.
#include <cmath>
#include <limits>

#include "support/by_dtype.h"

namespace attnmux::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

class Hostile : public ByDtype {
 protected:
  // A key that the query may not see gets poison in K if nobody of its kv head sees it, and in V if no query of its
  // batch entry sees it by position. Returns how many keys were poisoned, so that a test that poisons nothing fails.
  static int64_t poison_hidden(Case& c) {
    const ReferenceInput in = c.reference_input();
    const int64_t d = in.head_dim, dv = in.head_dim_v, group = in.heads_q / in.heads_kv;
    int64_t poisoned = 0;
    for (int64_t b = 0; b < static_cast<int64_t>(in.sequences.size()); ++b) {
      const auto& s = in.sequences[static_cast<size_t>(b)];
      for (int64_t j = 0; j < s.kv_length; ++j) {
        bool visible = false;
        for (int64_t i = 0; i < s.q_length; ++i) visible = visible || positions_attend(in, b, i, j);
        for (int64_t h = 0; h < in.heads_kv; ++h) {
          bool seen = false;
          for (int64_t head = h * group; head < (h + 1) * group; ++head) {
            for (int64_t i = 0; i < s.q_length; ++i) {
              const bool hidden =
                  (in.dense && !in.dense(b, head, i, j)) || (in.bias && in.bias(b, head, i, j) == -kInf);
              seen = seen || (positions_attend(in, b, i, j) && !hidden);
            }
          }
          const int64_t row = (s.kv_begin + j) * in.heads_kv + h;
          const double poison = j % 3 == 0 ? kNan : j % 3 == 1 ? kInf : -kInf;
          for (int64_t x = 0; !seen && x < d; ++x) c.k.set(row * d + x, poison);
          for (int64_t x = 0; !visible && x < dv; ++x) c.v.set(row * dv + x, poison);
          poisoned += !seen;
        }
      }
    }
    return poisoned;
  }

  // The result with poison must be the result without it, to the bit.
  static void expect_poison_does_not_matter(const Spec& s) {
    const Case clean(s);
    Case poisoned(s);
    ASSERT_GT(poison_hidden(poisoned), 0) << s.text();
    for (const Target& target : kernels()) {
      const Result a = run(clean, target), b = run(poisoned, target);
      if (a.refused()) continue;
      SCOPED_TRACE(target.text() + ": " + s.text());
      ASSERT_TRUE(b.status.ok()) << b.status.message();
      EXPECT_EQ(compare(clean, b, target), "");
      EXPECT_EQ(a.out.element_bytes(), b.out.element_bytes());
      EXPECT_EQ(a.lse.element_bytes(), b.lse.element_bytes());
    }
  }
};
ATTNMUX_TEST_SUITE_BY_DTYPE(Hostile);

TEST_P(Hostile, BehindKeyLengths) {
  for (const std::vector<int32_t>& lengths : {std::vector<int32_t>{0, 40}, {1, 65}, {64, 63}}) {
    Spec s = spec();
    s.key_lengths = lengths;
    expect_poison_does_not_matter(s);
  }
}

TEST_P(Hostile, InPadding) {
  for (const Padding padding : {Padding::kPrefix, Padding::kHoles, Padding::kEmptyRow}) {
    Spec s = spec();
    s.seqlen_kv = 131;
    s.padding = padding;
    expect_poison_does_not_matter(s);
  }
}

TEST_P(Hostile, BeyondTheDiagonal) {
  Spec s = spec();
  s.seqlen_q = 30;
  s.seqlen_kv = 100;
  s.causal = true;
  s.causal_align = Align::kTopLeft;
  expect_poison_does_not_matter(s);
  s.causal = false;
  s.window = true;
  s.window_left = 3;
  s.window_right = 4;
  s.window_align = Align::kBottomRight;
  expect_poison_does_not_matter(s);
}

TEST_P(Hostile, HiddenByADenseMask) {
  Spec s = spec();
  s.dense = true;
  s.dense_dims = kHasK | kHasB;
  s.seqlen_kv = 131;
  expect_poison_does_not_matter(s);
}

TEST_P(Hostile, HiddenByABiasOfMinusInfinity) {
  Spec s = spec();
  s.bias = BiasKind::kSomeMinusInf;
  s.bias_dims = kHasK | kHasB;
  s.seqlen_kv = 131;
  expect_poison_does_not_matter(s);
}

TEST_P(Hostile, InPackedSequences) {
  Spec s = spec();
  s.lengths_q = {5, 0, 7};
  s.lengths_kv = {30, 9, 70};
  s.key_lengths = {10, 9, 0};
  expect_poison_does_not_matter(s);
  s.key_lengths.clear();
  s.causal = true;
  s.causal_align = Align::kTopLeft;
  expect_poison_does_not_matter(s);
}

TEST_P(Hostile, EverythingTogether) {
  Spec s = spec();
  s.heads_q = 4;
  s.seqlen_q = 20;
  s.seqlen_kv = 140;
  s.causal = true;
  s.causal_align = Align::kTopLeft;
  s.key_lengths = {100, 12};
  s.padding = Padding::kHoles;
  s.dense = true;
  s.dense_dims = kHasK;
  s.softcap = 5;
  expect_poison_does_not_matter(s);
}

// One NaN in an attended key reaches the rows that attend to it, and no other.
TEST_P(Hostile, NanInAnAttendedKeyPropagates) {
  for (const double value : {kNan, kInf}) {
    for (const int64_t key : {0, 31, 64}) {
      Spec s = spec();
      s.seqlen_q = 65;
      s.causal = true;
      s.causal_align = Align::kTopLeft;
      Case c(s);
      c.q.fill([&, q = c.q.values()](int64_t i) { return std::fabs(q[static_cast<size_t>(i)]) + 0.1; });
      c.k.set(key * s.heads_kv * s.head_dim, value);  // batch 0, head 0: the score is NaN or +inf
      for (const Target& target : kernels()) {
        const Result r = run(c, target);
        if (r.refused()) continue;
        SCOPED_TRACE(target.text());
        for (int64_t i = 0; i < s.seqlen_q; ++i) {
          ASSERT_EQ(std::isnan(r.out.get(i * s.heads_q * s.head_dim)), i >= key) << "row " << i << " key " << key;
          ASSERT_FALSE(std::isnan(r.out.get((i * s.heads_q + 1) * s.head_dim))) << "row " << i << " of head 1";
        }
      }
    }
  }
}

TEST_P(Hostile, NanInQueryAndBiasPropagates) {
  Spec s = spec();
  s.bias = BiasKind::kNormal;
  Case c(s);
  c.q.set(3 * s.heads_q * s.head_dim, kNan);  // batch 0, row 3, head 0
  c.bias.set(7 * s.seqlen_kv + 40, kNan);     // batch 0, head 0, row 7, key 40
  conform(c);                                 // the reference knows which rows are NaN
  EXPECT_TRUE(std::isnan(c.exact().out[static_cast<size_t>(3 * s.heads_q * s.head_dim)]));
  EXPECT_TRUE(std::isnan(c.exact().out[static_cast<size_t>(7 * s.heads_q * s.head_dim)]));
}

// A row without keys is 0 even where q is NaN.
TEST_P(Hostile, NanQueryOfAnEmptyRow) {
  Spec s = spec();
  s.key_lengths = {0, 5};
  Case c(s);
  for (int64_t x = 0; x < c.q.count() / 2; ++x) c.q.set(x, kNan);
  conform(c);
  EXPECT_EQ(c.exact().out[0], 0);
}

// Values near the largest of the type stay finite: products and sums live in fp32 or better.
TEST_P(Hostile, LargeValuesStayFinite) {
  const double large = GetParam() == Dtype::kE4m3 ? 448 : GetParam() == Dtype::kFp16 ? 60000 : 1e30;
  Spec s = spec();
  Case c(s);
  c.v.fill([&, v = c.v.values()](int64_t i) { return v[static_cast<size_t>(i)] > 0 ? large : -large; });
  conform(c);
}

// Neighbours in V may differ by powers of two: each row is as exact as what it attends to is large, whatever lies
// beside.
TEST_P(Hostile, ValuesOfVeryDifferentSizes) {
  const int widest = GetParam() == Dtype::kE4m3 ? 4 : GetParam() == Dtype::kFp16 ? 10 : 20;
  const auto exponent = [&](int64_t key) { return static_cast<int>(key * 7 % 21 - 10) * widest / 10; };
  Spec s = spec();
  s.seqlen_q = s.seqlen_kv = 150;
  s.window = true;
  s.window_left = s.window_right = 0;
  s.window_align = Align::kTopLeft;
  Case c(s);
  const int64_t row_elements = s.heads_kv * s.head_dim, group = s.heads_q / s.heads_kv;
  c.v.fill([&, v = c.v.values()](int64_t i) {
    return std::ldexp(v[static_cast<size_t>(i)], exponent(i / row_elements % s.seqlen_kv));
  });
  const auto v = c.v.values();
  for (const Target& target : kernels()) {
    const Result r = run(c, target);
    if (r.refused()) continue;
    SCOPED_TRACE(target.text() + ": " + s.text());
    ASSERT_TRUE(r.status.ok()) << r.status.message();
    // A query attends to its own key alone: the output is a row of V.
    const auto out = r.out.values();
    for (int64_t i = 0; i < r.out.count(); ++i) {
      const int64_t x = i % s.head_dim, head = i / s.head_dim % s.heads_q, row = i / s.head_dim / s.heads_q;
      const double expected = v[static_cast<size_t>((row * s.heads_kv + head / group) * s.head_dim + x)];
      const double size = std::ldexp(1.0, exponent(row % s.seqlen_kv));
      ASSERT_NEAR(out[static_cast<size_t>(i)], expected,
                  4 * rounding_of(s.dtype) * size * (1 + std::fabs(expected / size)))
          << "element " << i;
    }
  }
}

}  // namespace
}  // namespace attnmux::test
