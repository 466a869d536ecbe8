// SPDX-License-Identifier: Apache-2.0
// Every kind of mask, each alone and all combinations.
#include "support/by_dtype.h"

namespace attnmux::test {
namespace {

class Masks : public ByDtype {};
ATTNMUX_TEST_SUITE_BY_DTYPE(Masks);

constexpr Align kCorners[] = {Align::kTopLeft, Align::kBottomRight};

TEST_P(Masks, Causal) {
  for (const Align align : kCorners) {
    for (const auto& [q, kv] : {std::pair{70, 70}, {33, 97}, {97, 33}, {1, 65}, {130, 128}, {64, 64}}) {
      if (intensity() == Intensity::kSmoke && q * kv > 3500) continue;
      Spec s = spec();
      s.seqlen_q = q;
      s.seqlen_kv = kv;
      s.causal = true;
      s.causal_align = align;
      conform(s);
    }
  }
  Spec square = spec();  // no alignment needed
  square.seqlen_q = square.seqlen_kv = 65;
  square.causal = true;
  conform(square);
}

TEST_P(Masks, Window) {
  for (const Align align : kCorners) {
    for (const auto& [left, right] :
         {std::pair{0, 0}, {3, 0}, {0, 3}, {16, 16}, {-1, 0}, {-1, 5}, {5, -1}, {-1, -1}, {64, 64}, {1000, 0}}) {
      Spec s = spec();
      s.seqlen_q = scaled(20, 67, 67);
      s.seqlen_kv = align == Align::kTopLeft ? scaled(70, 130, 130) : scaled(33, 90, 90);
      s.window = true;
      s.window_left = left;
      s.window_right = right;
      s.window_align = align;
      conform(s);
    }
  }
}

TEST_P(Masks, WindowAsWideAsIntegersAllow) {
  Spec s = spec();
  s.window = true;
  s.window_align = Align::kBottomRight;
  for (const auto& [left, right] :
       {std::pair{INT64_MAX, INT64_MAX}, {INT64_MAX, int64_t{0}}, {int64_t{0}, INT64_MAX}}) {
    s.window_left = left;
    s.window_right = right;
    conform(s);
  }
}

// Rows that see no key at all: above the diagonal of a bottom-right mask, outside of a window.
TEST_P(Masks, RowsWithoutKeys) {
  Spec s = spec();
  s.seqlen_q = 70;
  s.seqlen_kv = 20;
  s.causal = true;
  s.causal_align = Align::kBottomRight;
  conform(s);
  s.causal = false;
  s.window = true;
  s.window_left = s.window_right = 2;
  s.window_align = Align::kTopLeft;
  conform(s);
}

TEST_P(Masks, CausalAndWindowShareAnAlignment) {
  for (const auto& [causal, window] : {std::pair{Align::kTopLeft, Align::kNone},
                                       {Align::kNone, Align::kTopLeft},
                                       {Align::kBottomRight, Align::kNone},
                                       {Align::kNone, Align::kBottomRight},
                                       {Align::kBottomRight, Align::kBottomRight}}) {
    Spec s = spec();
    s.seqlen_q = 40;
    s.seqlen_kv = 75;
    s.causal = s.window = true;
    s.window_left = 11;
    s.window_right = 4;
    s.causal_align = causal;
    s.window_align = window;
    conform(s);
  }
}

TEST_P(Masks, KeyLengths) {
  for (const std::vector<int32_t>& lengths : {std::vector<int32_t>{0, 65}, {65, 65}, {1, 64}, {0, 0}, {63, 32}}) {
    Spec s = spec();
    s.key_lengths = lengths;
    conform(s);
    for (const Align align : kCorners) {
      s.causal = true;
      s.causal_align = align;
      conform(s);
    }
  }
}

TEST_P(Masks, KeyPadding) {
  for (const Padding padding : {Padding::kPrefix, Padding::kHoles, Padding::kEmptyRow, Padding::kAllTrue}) {
    for (const Dtype dtype : {Dtype::kBool, Dtype::kUint8}) {
      Spec s = spec();
      s.padding = padding;
      s.padding_dtype = dtype;
      s.seqlen_kv = 140;
      conform(s);
    }
  }
}

// Padding does not change the key length, so it does not move the bottom-right corner.
TEST_P(Masks, PaddingDoesNotMoveTheCorner) {
  Spec s = spec();
  s.padding = Padding::kPrefix;
  s.causal = true;
  s.causal_align = Align::kBottomRight;
  conform(s);
}

TEST_P(Masks, DenseInEveryBroadcastForm) {
  for (uint32_t dims = 0; dims < 16; ++dims) {
    for (const Broadcast how : {Broadcast::kExtentOne, Broadcast::kStrideZero, Broadcast::kLowerRank}) {
      if (intensity() == Intensity::kSmoke && (dims + static_cast<uint32_t>(how)) % 3 != 0) continue;
      Spec s = spec();
      s.seqlen_q = 21;
      s.head_dim = 16;
      s.heads_q = 4;
      s.dense = true;
      s.dense_dims = dims;
      s.dense_broadcast = how;
      s.seed = dims + 1;
      conform(s);
    }
  }
}

TEST_P(Masks, DenseOfEveryDensity) {
  for (const double density : {0.0, 0.02, 0.5, 1.0}) {
    for (const Dtype dtype : {Dtype::kBool, Dtype::kUint8}) {
      Spec s = spec();
      s.seqlen_kv = 130;
      s.dense = true;
      s.dense_density = density;
      s.dense_dtype = dtype;
      conform(s);
    }
  }
}

// All 32 sets of the five kinds.
TEST_P(Masks, Combinations) {
  for (uint32_t kinds = 0; kinds < 32; ++kinds) {
    if (intensity() == Intensity::kSmoke && kinds % 5 != 1) continue;
    Spec s = spec();
    s.seqlen_q = scaled(20, 45, 45);
    s.seqlen_kv = 83;
    s.heads_q = 4;
    s.heads_kv = 2;
    s.seed = kinds + 100;
    const Align align = kCorners[kinds % 2];
    if (kinds & 1) s.causal = true, s.causal_align = Align::kBottomRight;
    if (kinds & 2)
      s.window = true, s.window_left = 30, s.window_right = 20, s.window_align = kinds & 1 ? Align::kNone : align;
    if (kinds & 4) s.key_lengths = {61, 83};
    if (kinds & 8) s.padding = Padding::kHoles;
    if (kinds & 16) s.dense = true;
    conform(s);
  }
}

}  // namespace
}  // namespace attnmux::test
