// SPDX-License-Identifier: Apache-2.0
// Few queries over many keys: kernels split the keys, stack the heads of a kv head, read K and V in place.
#include "support/by_dtype.h"

namespace attnmux::test {
namespace {

class Decode : public ByDtype {
 protected:
  Spec one_query() const {
    Spec s = spec();
    s.batch = 1;
    s.seqlen_q = 1;
    s.seqlen_kv = scaled(530, 1100, 1100);
    s.head_dim = 64;
    return s;
  }
};
ATTNMUX_TEST_SUITE_BY_DTYPE(Decode);

TEST_P(Decode, EveryGroupOfHeads) {
  for (const int64_t group : {1, 2, 3, 4, 5, 7, 8, 16}) {
    for (const int64_t q : {1, 2, 3, 8}) {
      Spec s = one_query();
      s.seqlen_q = q;
      s.seqlen_kv = 70 + group;
      s.heads_kv = 2;
      s.heads_q = 2 * group;
      s.seed = static_cast<uint64_t>(group * 10 + q);
      conform(s);
    }
  }
}

// A few more or fewer keys than a block, or than a range.
TEST_P(Decode, KeysAroundTheEdgesOfBlocks) {
  for (const int64_t kv : {1, 3, 63, 64, 65, 128, 511, 512, 513, 576, 1025}) {
    Spec s = one_query();
    s.seqlen_kv = kv;
    s.heads_q = 4;
    s.heads_kv = 1;
    s.seed = static_cast<uint64_t>(kv);
    conform(s);
  }
}

// Ranges grow with the keys, so that there are never more than a fixed number of them.
TEST_P(Decode, VeryManyKeys) {
  if (intensity() == Intensity::kSmoke) GTEST_SKIP() << "too slow for a smoke test";
  Spec s = one_query();
  s.seqlen_kv = 64 * 512 + 100;
  s.heads_q = s.heads_kv = 4;  // with few outputs one rounding error decides both sides of the rule
  s.head_dim = 8;
  conform(s);
}

TEST_P(Decode, HeadDims) {
  for (const auto& [d, dv] : {std::pair{1, 1},
                              {7, 9},
                              {15, 33},
                              {40, 40},
                              {80, 80},
                              {96, 64},
                              {100, 130},
                              {128, 128},
                              {192, 128},
                              {256, 256}}) {
    Spec s = one_query();
    s.seqlen_q = 2;
    s.seqlen_kv = 77;
    s.head_dim = d;
    s.head_dim_v = dv;
    s.seed = static_cast<uint64_t>(d * 1000 + dv);
    conform(s);
  }
}

TEST_P(Decode, MasksAcrossRanges) {
  for (const bool causal : {false, true}) {
    for (const Padding padding : {Padding::kNone, Padding::kPrefix, Padding::kHoles, Padding::kEmptyRow}) {
      for (const bool dense : {false, true}) {
        Spec s = one_query();
        s.batch = 2;
        s.seqlen_q = 3;
        s.heads_q = 4;
        s.head_dim = 24;
        s.padding = padding;
        s.dense = dense;
        s.causal = causal;
        s.causal_align = Align::kBottomRight;
        if (padding != Padding::kHoles) s.key_lengths = {static_cast<int32_t>(s.seqlen_kv - 10), 20};
        conform(s);
      }
    }
  }
}

TEST_P(Decode, ScoreArguments) {
  for (const BiasKind bias : {BiasKind::kNone, BiasKind::kNormal, BiasKind::kSomeMinusInf, BiasKind::kRowsMinusInf}) {
    for (const double softcap : {0.0, 5.0}) {
      for (const double scale : {0.3, -0.2, 0.0}) {
        Spec s = one_query();
        s.seqlen_kv = 540;
        s.seqlen_q = 2;
        s.head_dim = 16;
        s.bias = bias;
        s.softcap = softcap;
        s.scale = scale;
        if (softcap > 0) s.dropout = 0.25;
        conform(s);
      }
    }
  }
}

TEST_P(Decode, WindowLeavesOneRange) {
  Spec s = one_query();
  s.seqlen_q = 4;
  s.window = true;
  s.window_align = Align::kBottomRight;
  s.window_left = 100;
  s.window_right = 0;
  conform(s);
}

TEST_P(Decode, PackedSequences) {
  Spec s = spec();
  s.lengths_q = {1, 0, 3, 8, 1};
  s.lengths_kv = {600, 5, 0, 70, 1};
  s.heads_q = 6;
  s.heads_kv = 2;
  s.causal = true;
  s.causal_align = Align::kBottomRight;
  conform(s);
}

TEST_P(Decode, StridedRows) {
  for (const Layout layout : kInputLayouts) {
    Spec s = one_query();
    s.seqlen_kv = 150;
    s.heads_q = 4;
    s.layout_q = s.layout_k = s.layout_v = layout;
    conform(s);
  }
}

}  // namespace
}  // namespace attnmux::test
