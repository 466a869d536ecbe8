// SPDX-License-Identifier: Apache-2.0
// Packed sequences: unequal cu_seqlens, empty sequences, grouped heads, every mask kind per sequence.
#include "support/by_dtype.h"

namespace attnmux::test {
namespace {

class VarlenOf : public ByDtype {
 protected:
  Spec packed(std::vector<int64_t> q, std::vector<int64_t> kv) const {
    Spec s = spec();
    s.lengths_q = std::move(q);
    s.lengths_kv = std::move(kv);
    return s;
  }
};
ATTNMUX_TEST_SUITE_BY_DTYPE(VarlenOf);

TEST_P(VarlenOf, Lengths) {
  for (const auto& [q, kv] : std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>>{
           {{33}, {65}},
           {{1, 1, 1}, {70, 1, 13}},
           {{70, 0, 5}, {12, 9, 130}},
           {{4, 8}, {0, 0}},
           {{0, 0, 0}, {3, 4, 5}},
           {{0}, {0}},
           {{129, 2, 64, 17}, {1, 66, 64, 127}},
           {std::vector<int64_t>(25, 3), std::vector<int64_t>(25, 5)}}) {
    Spec s = packed(q, kv);
    conform(s);
    s.tight_max_seqlen = false;
    s.heads_q = 6;
    conform(s);
  }
}

TEST_P(VarlenOf, CausalAndWindow) {
  for (const Align align : {Align::kTopLeft, Align::kBottomRight}) {
    Spec s = packed({5, 40, 0, 66}, {23, 8, 4, 66});
    s.causal = true;
    s.causal_align = align;
    s.heads_q = 4;
    conform(s);
    s.window = true;
    s.window_left = 10;
    s.window_right = 2;
    conform(s);
    s.causal = false;
    s.window_align = align;
    conform(s);
  }
}

TEST_P(VarlenOf, EqualLengthsNeedNoAlignment) {
  Spec s = packed({5, 40, 0, 66}, {5, 40, 0, 66});
  s.causal = true;
  conform(s);  // equal values in two tensors
  s.shared_cu_seqlens = true;
  conform(s);  // one tensor for both
}

TEST_P(VarlenOf, MasksPerSequence) {
  Spec s = packed({5, 40, 3}, {23, 50, 34});
  s.key_lengths = {0, 50, 20};
  conform(s);
  s.causal = true;
  s.causal_align = Align::kBottomRight;
  conform(s);
  s.padding = Padding::kHoles;
  s.dense = true;
  s.bias = BiasKind::kSomeMinusInf;
  conform(s);
}

TEST_P(VarlenOf, EveryLayout) {
  for (const Layout layout : kInputLayouts) {
    Spec s = packed({5, 40, 3}, {23, 50, 34});
    s.layout_q = s.layout_k = s.layout_v = layout;
    s.layout_out = layout == Layout::kReversed ? Layout::kPadded : layout;
    conform(s);
  }
}

TEST_P(VarlenOf, SoftcapScaleAndHeadDimOfV) {
  Spec s = packed({31, 2}, {64, 17});
  s.softcap = 4;
  s.scale = 0.7;
  s.head_dim = 72;
  s.head_dim_v = 24;
  conform(s);
}

// A packed batch of equal sequences is the padded batch: the same bits.
TEST_P(VarlenOf, EqualsThePaddedBatch) {
  for (const Target& target : kernels()) {
    Spec padded = spec();
    padded.batch = 3;
    padded.seqlen_q = 20;
    padded.seqlen_kv = 45;
    padded.causal = true;
    padded.causal_align = Align::kBottomRight;
    Spec flat = padded;
    flat.lengths_q = {20, 20, 20};
    flat.lengths_kv = {45, 45, 45};
    const Case a(padded), b(flat);
    const Result ra = run(a, target), rb = run(b, target);
    if (ra.refused() || rb.refused()) continue;
    ASSERT_EQ(a.k.values(), b.k.values());
    EXPECT_EQ(ra.out.element_bytes(), rb.out.element_bytes()) << target.text();
  }
}

}  // namespace
}  // namespace attnmux::test
