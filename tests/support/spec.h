// SPDX-License-Identifier: Apache-2.0
// One attention call as a test writes it down: shapes, masks, values, layouts. A Case (case.h) makes tensors of it.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "support/tensor.h"

namespace attnmux::test {

/// What q, k and v hold.
enum class Values {
  kNormal,    // N(0, 1)
  kIntegers,  // small integers: every product and sum is exact, ties are real
  kHuge,      // integers so large that one key takes all
  kZeroQ,     // q = 0: every score equal
};

enum class Padding { kNone, kPrefix, kHoles, kEmptyRow, kAllTrue };
enum class BiasKind { kNone, kNormal, kSomeMinusInf, kRowsMinusInf, kRowsLowest };

/// Bits of the dimensions of (B, Hq, Sq, Skv) that a mask or bias really has; the others are broadcast.
enum : uint32_t { kHasB = 1, kHasH = 2, kHasQ = 4, kHasK = 8, kHasAll = 15 };

/// How a broadcast dimension is written: extent 1, extent n with stride 0, or, where leading, left out.
enum class Broadcast { kExtentOne, kStrideZero, kLowerRank };

struct Spec {
  Dtype dtype = Dtype::kFp32;
  int64_t batch = 2, seqlen_q = 33, seqlen_kv = 65, heads_q = 2, heads_kv = 2, head_dim = 32, head_dim_v = 0;

  bool causal = false, window = false;
  Align causal_align = Align::kNone, window_align = Align::kNone;
  int64_t window_left = 0, window_right = 0;
  std::vector<int32_t> key_lengths = {};  // empty: no such mask
  Padding padding = Padding::kNone;
  Dtype padding_dtype = Dtype::kBool;
  bool dense = false;
  uint32_t dense_dims = kHasAll;
  Broadcast dense_broadcast = Broadcast::kExtentOne;
  Dtype dense_dtype = Dtype::kBool;
  double dense_density = 0.7;

  BiasKind bias = BiasKind::kNone;
  uint32_t bias_dims = kHasAll;
  Broadcast bias_broadcast = Broadcast::kExtentOne;
  Dtype bias_dtype = Dtype::kFp32;

  std::optional<double> scale = {};
  double softcap = 0;
  bool lse = true;
  std::optional<double> dropout = {};
  uint64_t dropout_seed = 0x1234'5678'9ABC'DEF0, dropout_offset = 0;

  // Packed sequences: one entry per sequence; batch, seqlen_q and seqlen_kv are then ignored.
  std::vector<int64_t> lengths_q = {}, lengths_kv = {};
  bool tight_max_seqlen = true;    // false leaves max_seqlen at 0
  bool shared_cu_seqlens = false;  // one tensor for q and kv

  Layout layout_q = Layout::kContiguous, layout_k = Layout::kContiguous, layout_v = Layout::kContiguous;
  Layout layout_out = Layout::kContiguous, layout_lse = Layout::kContiguous;
  uint32_t descales = 0;      // e4m3: a bit for each of q, k and v that has one
  uint32_t broadcast_kv = 0;  // a bit per dimension of k and v with stride 0
  Values values = Values::kNormal;
  double value_scale = 1;
  uint64_t seed = 1;

  bool packed() const { return !lengths_q.empty(); }
  int64_t dim_v() const { return head_dim_v == 0 ? head_dim : head_dim_v; }
  /// (B, Hq, Sq, Skv) as masks and bias see it; of packed sequences the longest count.
  std::array<int64_t, 4> score_shape() const;
  /// The feature bits of the C ABI that the call asks for, those that follow from the shapes included.
  uint64_t features() const;
  std::string text() const;
};

/// Any valid call: every kind of mask, value and layout, small enough for the reference loops.
Spec random_spec(Random& random);

}  // namespace attnmux::test
