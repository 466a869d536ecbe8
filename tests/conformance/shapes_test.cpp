// SPDX-License-Identifier: Apache-2.0
// Every head dimension, ragged sequence lengths, grouped heads, empty tensors.
#include "support/by_dtype.h"

namespace attnmux::test {
namespace {

class Shapes : public ByDtype {};
ATTNMUX_TEST_SUITE_BY_DTYPE(Shapes);

TEST_P(Shapes, HeadDims) {
  for (const int64_t d : {1, 7, 8, 16, 32, 40, 64, 72, 80, 96, 128, 160, 256, 512}) {
    if (intensity() == Intensity::kSmoke && d > 160) continue;
    Spec s = spec();
    s.batch = 1;
    s.heads_q = s.heads_kv = 2;
    s.head_dim = d;
    s.seqlen_q = 37;
    s.seqlen_kv = 70;
    s.seed = static_cast<uint64_t>(d);
    conform(s);
  }
}

TEST_P(Shapes, HeadDimOfVDiffers) {
  for (const auto& [d, dv] :
       {std::pair{64, 32}, {32, 64}, {1, 40}, {40, 1}, {72, 128}, {192, 128}, {128, 512}, {7, 9}}) {
    if (intensity() == Intensity::kSmoke && dv > 128) continue;
    Spec s = spec();
    s.head_dim = d;
    s.head_dim_v = dv;
    s.seqlen_q = 19;
    s.seed = static_cast<uint64_t>(d * 1000 + dv);
    conform(s);
  }
}

TEST_P(Shapes, RaggedLengths) {
  for (const int64_t kv : {1, 2, 7, 15, 63, 64, 65, 127, 128, 130, 257}) {
    for (const int64_t q : {1, 3, 16, 65, 129}) {
      if (intensity() == Intensity::kSmoke && q + kv > 140) continue;
      Spec s = spec();
      s.batch = 1;
      s.heads_q = s.heads_kv = 2;
      s.seqlen_q = q;
      s.seqlen_kv = kv;
      s.head_dim = kv % 2 == 0 ? 64 : 40;
      s.seed = static_cast<uint64_t>(q * 1000 + kv);
      conform(s);
    }
  }
}

TEST_P(Shapes, ManyKeys) {
  for (const int64_t kv : {511, 1023, 1024, 1025}) {
    if (intensity() == Intensity::kSmoke && kv > 511) continue;
    Spec s = spec();
    s.batch = 1;
    s.heads_q = s.heads_kv = 1;
    s.head_dim = 64;
    s.seqlen_q = 33;
    s.seqlen_kv = kv;
    conform(s);
  }
}

TEST_P(Shapes, GroupedHeads) {
  for (const auto& [hq, hkv] : {std::pair{2, 1}, {8, 1}, {6, 2}, {12, 4}, {3, 3}, {5, 5}}) {
    for (const int64_t q : {1, 5, 34}) {
      Spec s = spec();
      s.heads_q = hq;
      s.heads_kv = hkv;
      s.seqlen_q = q;
      s.seed = static_cast<uint64_t>(hq * 100 + hkv);
      conform(s);
    }
  }
}

TEST_P(Shapes, EmptyTensors) {
  const auto with = [&](auto change) {
    Spec s = spec();
    change(s);
    conform(s);
  };
  with([](Spec& s) { s.seqlen_q = 0; });
  with([](Spec& s) { s.seqlen_kv = 0; });
  with([](Spec& s) { s.seqlen_q = s.seqlen_kv = 0; });
  with([](Spec& s) { s.batch = 0; });
  with([](Spec& s) { s.heads_q = s.heads_kv = 0; });
  with([](Spec& s) { s.heads_q = 0; });
  with([](Spec& s) {
    s.seqlen_kv = 0;
    s.causal = true;
    s.causal_align = Align::kBottomRight;
    s.bias = BiasKind::kNormal;
    s.dense = true;
    s.padding = Padding::kAllTrue;
    s.key_lengths = {0, 0};
  });
}

// Many batches, few rows: work must be split over batch and heads, too.
TEST_P(Shapes, ManySmallProblems) {
  Spec s = spec();
  s.batch = 37;
  s.heads_q = s.heads_kv = 3;
  s.seqlen_q = 2;
  s.seqlen_kv = 5;
  conform(s);
}

}  // namespace
}  // namespace attnmux::test
