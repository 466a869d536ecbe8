// SPDX-License-Identifier: Apache-2.0
// What shifts and shapes scores: bias, softcap, scale, extreme logits.
#include <cmath>
#include <limits>

#include "support/by_dtype.h"

namespace attnmux::test {
namespace {

class Scores : public ByDtype {};
ATTNMUX_TEST_SUITE_BY_DTYPE(Scores);

constexpr Dtype kBiasDtypes[] = {Dtype::kFp32, Dtype::kFp16, Dtype::kBf16};

TEST_P(Scores, BiasInEveryBroadcastForm) {
  for (uint32_t dims = 0; dims < 16; ++dims) {
    for (const Broadcast how : {Broadcast::kExtentOne, Broadcast::kStrideZero, Broadcast::kLowerRank}) {
      if (intensity() == Intensity::kSmoke && (dims + static_cast<uint32_t>(how)) % 3 != 0) continue;
      Spec s = spec();
      s.seqlen_q = 21;
      s.head_dim = 16;
      s.heads_q = 4;
      s.bias = BiasKind::kNormal;
      s.bias_dims = dims;
      s.bias_broadcast = how;
      s.bias_dtype = kBiasDtypes[dims % 3];
      s.seed = dims + 1;
      conform(s);
    }
  }
}

TEST_P(Scores, BiasOfEveryKind) {
  for (const BiasKind kind :
       {BiasKind::kNormal, BiasKind::kSomeMinusInf, BiasKind::kRowsMinusInf, BiasKind::kRowsLowest}) {
    for (const Dtype dtype : kBiasDtypes) {
      Spec s = spec();
      s.seqlen_kv = 97;
      s.bias = kind;
      s.bias_dtype = dtype;
      conform(s);
      s.causal = true;
      s.causal_align = Align::kTopLeft;
      s.padding = Padding::kHoles;
      conform(s);
    }
  }
}

TEST_P(Scores, BiasOfFp64ForFp64) {
  Spec s = spec();
  if (s.dtype != Dtype::kFp64) return;
  s.bias_dtype = Dtype::kFp64;
  for (const BiasKind kind : {BiasKind::kNormal, BiasKind::kSomeMinusInf, BiasKind::kRowsMinusInf}) {
    s.bias = kind;
    conform(s);
  }
}

// A row of -FLT_MAX is finite: it averages its keys, as in PyTorch, and does not become an empty row.
TEST_P(Scores, LowestBiasAveragesTheKeys) {
  for (const Target& target : kernels()) {
    Spec s = spec();
    s.batch = s.heads_q = s.heads_kv = 1;
    s.seqlen_q = 1;
    s.seqlen_kv = 80;
    s.bias = BiasKind::kNormal;
    s.bias_dims = kHasK;
    Case c(s);
    c.bias.fill([](int64_t) { return -static_cast<double>(std::numeric_limits<float>::max()); });
    c.v.fill([&](int64_t index) { return index / s.head_dim < 40 ? 1.0 : 0.0; });
    check(c, target);
    const Result r = run(c, target);
    if (r.refused()) continue;
    EXPECT_NEAR(r.out.get(0), 0.5, 4 * rounding_of(s.dtype) + 1e-6) << target.text();
    EXPECT_FLOAT_EQ(static_cast<float>(r.lse.get(0)), -std::numeric_limits<float>::max()) << target.text();
  }
}

// Scores climb with the key for even queries and fall for odd ones, through many blocks of keys and by more than any
// slack in the running maximum: sums and outputs of earlier blocks must shrink along.
TEST_P(Scores, MaximaThatGrowFromBlockToBlock) {
  for (const bool causal : {false, true}) {
    Spec s = spec();
    s.batch = s.heads_q = s.heads_kv = 1;
    s.seqlen_q = 130;
    s.seqlen_kv = 1300;
    s.scale = 1;
    s.causal = causal;
    s.causal_align = causal ? Align::kBottomRight : Align::kNone;
    Case c(s);
    c.q.fill([&](int64_t index) { return index / s.head_dim % 2 == 0 ? 1.0 : -1.0; });
    c.k.fill([&](int64_t index) {
      const int64_t key = index / s.head_dim;
      return static_cast<double>(key) / 32 / static_cast<double>(s.head_dim);
    });
    conform(c);
  }
}

// What changes scores or weights, over more keys than a kernel takes between two rounds of the softmax and over whole
// blocks of queries: buffers that blocks share must not mix them up.
TEST_P(Scores, EveryHookOverManyBlocksOfKeys) {
  Spec plain = spec();
  plain.batch = plain.heads_q = plain.heads_kv = 1;
  plain.seqlen_q = 70;
  plain.seqlen_kv = 1111;
  std::vector<Spec> specs(6, plain);
  specs[1].bias = BiasKind::kSomeMinusInf;
  specs[2].dense = true;
  specs[3].padding = Padding::kHoles;
  specs[4].dropout = 0.3;
  specs[5].softcap = 5;
  specs[5].causal = true;
  specs[5].causal_align = Align::kBottomRight;
  specs[5].bias = BiasKind::kNormal;
  specs[5].dense = true;
  specs[5].padding = Padding::kHoles;
  specs[5].dropout = 0.3;
  for (const Spec& s : specs) conform(s);
}

// Score and bias are finite, their sum is beyond fp32: it stays the largest finite number, so equal keys share the row.
TEST_P(Scores, SumsBeyondTheRangeStayFinite) {
  for (const double sign : {-1.0, 1.0}) {
    Spec s = spec();
    s.batch = s.heads_q = s.heads_kv = 1;
    s.seqlen_kv = 80;
    s.bias = BiasKind::kNormal;
    s.bias_dims = kHasK;
    s.scale = sign * 1e33;
    s.lse = false;
    Case c(s);
    c.q.fill([](int64_t) { return 1; });
    c.k.fill([](int64_t) { return 1; });
    c.v.fill([&](int64_t index) { return index / s.head_dim < 40 ? 1.0 : 0.0; });
    c.bias.fill([&](int64_t) { return sign * static_cast<double>(std::numeric_limits<float>::max()); });
    for (const Target& target : kernels()) {
      const Result r = run(c, target);
      if (r.refused()) continue;
      for (int64_t i = 0; i < r.out.count(); ++i) {
        ASSERT_NEAR(r.out.get(i), 0.5, 4 * rounding_of(s.dtype) + 1e-6) << target.text() << " sign " << sign;
      }
    }
  }
}

TEST_P(Scores, Softcap) {
  for (const double cap : {0.001, 1.0, 30.0, 1e6}) {
    for (const double magnitude : {1.0, 8.0}) {
      if (intensity() == Intensity::kSmoke && magnitude == 8.0) continue;
      Spec s = spec();
      s.softcap = cap;
      s.value_scale = magnitude;
      conform(s);
      s.bias = BiasKind::kNormal;  // added after the cap
      s.scale = -0.3;
      conform(s);
    }
  }
}

TEST_P(Scores, Scale) {
  for (const double scale : {0.0, -0.0, 1.0, -1.0, 0.125, 1e-30, -3.7, 50.0, 1e-3}) {
    Spec s = spec();
    s.scale = scale;
    s.value_scale = std::fabs(scale) > 2 ? 0.25 : 1;
    conform(s);
  }
}

TEST_P(Scores, NegativeScaleWithMasks) {
  Spec s = spec();
  s.scale = -2;
  s.causal = true;
  s.causal_align = Align::kBottomRight;
  s.bias = BiasKind::kSomeMinusInf;
  conform(s);
}

// Scores so far apart that one key takes all, and real ties between the winners.
TEST_P(Scores, HugeLogits) {
  for (const double scale : {1.0 / 64, 1.0, 1024.0, -16.0}) {
    Spec s = spec();
    // Scores up to 2^28, of which fp32 holds no steps of 1; 8-bit P has no range to make up for that
    // (docs/numerics.md).
    if (s.dtype == Dtype::kE4m3 && scale > 1) continue;
    s.values = Values::kHuge;
    s.head_dim = 64;
    s.scale = scale;
    conform(s);
  }
}

TEST_P(Scores, Ties) {
  for (const Values values : {Values::kIntegers, Values::kZeroQ}) {
    Spec s = spec();
    s.values = values;
    s.seqlen_kv = 130;
    conform(s);
  }
}

TEST_P(Scores, WideAndNarrowLogits) {
  for (const double magnitude : {0.01, 0.5, 2.0, 4.0, 10.0}) {
    Spec s = spec();
    s.value_scale = magnitude;
    s.head_dim = 128;
    conform(s);
  }
}

}  // namespace
}  // namespace attnmux::test
